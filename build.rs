//! Binds DPDK for `dpdk-sys`: the allowlisted parts of `dpdk.h`, and C wrappers for what is
//! `static inline` there.

use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const FUNCTIONS: &[&str] = &[
    "rte_eal_(init|cleanup|hotplug_add|hotplug_remove)",
    "rte_openlog_stream",
    "rte_strerror",
    "rte_thread_(register|unregister)",
    "rte_lcore_id",
    "rte_pktmbuf_(pool_create|alloc|alloc_bulk|free|free_bulk)",
    "rte_mempool_(free|in_use_count)",
    "rte_eth_dev_(info_get|configure|start|stop|close|get_port_by_name|socket_id)",
    "rte_eth_dev_(adjust_nb_rx_tx_desc|get_mtu|set_mtu)",
    "rte_eth_dev_(rx|tx)_offload_name",
    "rte_eth_(rx|tx)_(queue_setup|burst)",
    "rte_eth_promiscuous_(enable|disable)",
    "rte_eth_allmulticast_enable",
    "rte_eth_macaddr_get",
    "rte_eth_stats_get",
    "rte_get_tsc_hz",
    "rte_version",
    "director_.*",
];
const TYPES: &[&str] = &["rte_mbuf", "rte_mempool", "rte_eth_(rx|tx)_mq_mode"];
const VARS: &[&str] = &[
    "DIRECTOR_.*",
    "RTE_PKTMBUF_HEADROOM",
    "RTE_MEMPOOL_NAMESIZE",
];
/// Only ever seen behind a pointer: their insides change between releases.
const OPAQUE: &[&str] = &["rte_mbuf", "rte_mempool", "rte_device", "_IO_FILE"];

fn main() {
    println!("cargo:rerun-if-changed=dpdk.h");
    println!("cargo:rerun-if-changed=../build.rs");
    if let Err(missing) = bind() {
        eprintln!("dpdk-sys: {missing}");
        eprintln!("dpdk-sys: on Debian: apt-get install dpdk-dev libdpdk-dev libclang-dev");
        exit(1);
    }
}

fn bind() -> Result<(), String> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    // Prints the link flags. Its include paths lack `-march` and `-include`, which the headers need.
    pkg_config::Config::new()
        .atleast_version("22.11")
        .probe("libdpdk")
        .map_err(|_| "libdpdk (22.11 or newer) not found by pkg-config".to_owned())?;
    let flags = cflags()?;
    find_libclang()?;
    let wrappers = generate(&out, &flags)?;
    compile(&wrappers, &flags)
}

fn cflags() -> Result<Vec<String>, String> {
    let pkg_config = std::env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = Command::new(pkg_config)
        .args(["--cflags", "libdpdk"])
        .output()
        .map_err(|error| format!("pkg-config does not run: {error}"))?;
    if !output.status.success() {
        return Err("pkg-config --cflags libdpdk failed".to_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Bindgen panics where libclang is missing; this says it in a line.
fn find_libclang() -> Result<(), String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = std::panic::catch_unwind(bindgen::clang_version);
    std::panic::set_hook(hook);
    found.map(drop).map_err(|_| "libclang not found".to_owned())
}

fn generate(out: &Path, flags: &[String]) -> Result<PathBuf, String> {
    let wrappers = out.join("wrappers.c");
    let mut builder = bindgen::Builder::default()
        .header("dpdk.h")
        .clang_args(flags)
        .wrap_static_fns(true)
        .wrap_static_fns_suffix("_w")
        .wrap_static_fns_path(&wrappers)
        .default_enum_style(bindgen::EnumVariation::ModuleConsts)
        .derive_default(true)
        .generate_comments(false)
        .blocklist_type("rte_mbuf_.*")
        .layout_tests(false);
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    for name in VARS {
        builder = builder.allowlist_var(name);
    }
    for name in OPAQUE {
        builder = builder.opaque_type(name);
    }
    builder
        .generate()
        .map_err(|error| format!("DPDK's headers do not parse: {error}"))?
        .write_to_file(out.join("bindings.rs"))
        .map_err(|error| format!("cannot write the bindings: {error}"))?;
    Ok(wrappers)
}

fn compile(wrappers: &Path, flags: &[String]) -> Result<(), String> {
    let mut build = cc::Build::new();
    build.file(wrappers).include(".").warnings(false);
    for flag in flags {
        build.flag(flag);
    }
    // Each wrapper is called once a burst or packet: it is worth optimising even in a debug build.
    build.opt_level(3);
    build
        .try_compile("dpdk_wrappers")
        .map_err(|error| format!("the wrappers do not compile: {error}"))
}
