//! Compiles the C file against the headers of the interpreter that the module is built for.

use std::process::Command;

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    let config = pyo3_build_config::get();
    let python = config.executable.as_deref().unwrap_or("python3").to_owned();
    let program = "import sysconfig; print(sysconfig.get_path('include'), sysconfig.get_path('platinclude'), \
                   sysconfig.get_config_var('Py_GIL_DISABLED') or 0, sep='\\n')";
    let output = Command::new(&python).args(["-c", program]).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {python}: {error}"));
    assert!(output.status.success(), "{python} does not tell where its headers are");
    let text = String::from_utf8(output.stdout).expect("paths in UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    let [include, platform_include, free_threaded] = lines[..] else { panic!("unexpected answer: {text}") };
    assert!(
        std::path::Path::new(include).join("internal/pycore_tstate.h").exists()
            || std::path::Path::new(platform_include).join("internal/pycore_tstate.h").exists(),
        "{python} has no internal headers below {include}: install its development package (python3.X-dev)"
    );
    let mut build = cc::Build::new();
    build.file("csrc/pystate.c").include(include).include(format!("{include}/internal"));
    build.include(platform_include).include(format!("{platform_include}/internal"));
    build.opt_level(3).std("c11").flag_if_supported("-Wno-unused-parameter");
    // Nobody else calls these functions: so they may be inlined into each other.
    build.flag_if_supported("-fvisibility=hidden");
    if free_threaded == "1" {
        build.define("Py_GIL_DISABLED", "1");
    }
    build.compile("goslings_pystate");
    println!("cargo:rerun-if-changed=csrc/pystate.c");
    println!("cargo:rerun-if-changed=build.rs");
}
