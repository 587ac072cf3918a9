//! What `directord --version` says of the build: the commit, if the sources are under git's control.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=DIRECTOR_BUILD");
    let env = |name| std::env::var(name).unwrap_or_default();
    println!("cargo:rustc-env=DIRECTOR_TARGET={}", env("TARGET"));
    let given = env("DIRECTOR_BUILD");
    let build = if !given.is_empty() {
        given
    } else if env("PROFILE") == "release" {
        commit().unwrap_or_else(|| "release build".to_owned())
    } else {
        // That a commit was made is no reason to build everything again.
        "debug build".to_owned()
    };
    println!("cargo:rustc-env=DIRECTOR_BUILD={build}");
}

/// `commit 0123abc`, with `-dirty` if files differ from it.
fn commit() -> Option<String> {
    // A tarball that was unpacked inside another repository is not of its commit.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    let head = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    for changed in [head.as_str(), "src", "../ctl/src"] {
        println!("cargo:rerun-if-changed={changed}");
    }
    let name = git(&[
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ])?;
    Some(format!("commit {name}"))
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
