//! The target that `FUZZ_TARGET` names, under libFuzzer; or, with `FUZZ_SEEDS=FOLDER`, what each
//! target begins with: FOLDER/TARGET/seed-NAME and FOLDER/TARGET.dict.

#![no_main]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool of the tests"
)]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let target = fuzz::TARGETS.iter().find(|(name, _)| *name == wanted);
    let (_, run) = target.unwrap_or_else(|| panic!("FUZZ_TARGET={wanted:?} is no target"));
    *run
});

libfuzzer_sys::fuzz_target!(
    init: {
        if let Some(folder) = std::env::var_os("FUZZ_SEEDS") {
            write_seeds(Path::new(&folder));
            std::process::exit(0);
        }
        LazyLock::force(&RUN);
    },
    |data: &[u8]| RUN(data)
);

/// And says the targets' names.
fn write_seeds(folder: &Path) {
    for (target, _) in fuzz::TARGETS {
        let seeds = fuzz::seeds::of(target);
        let own = folder.join(target);
        fs::create_dir_all(&own).unwrap();
        let words = fuzz::seeds::dictionary(&seeds);
        fs::write(folder.join(format!("{target}.dict")), words).unwrap();
        for (name, bytes) in seeds {
            fs::write(own.join(format!("seed-{name}")), bytes).unwrap();
        }
        println!("{target}");
    }
}
