//! Compiles `classifier.bpf.c` to the eBPF object that the loader embeds.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const SOURCE: &str = "classifier.bpf.c";
const NEEDED: &str = "the XDP classifier needs clang (14 or newer) and the headers of libbpf and of the kernel;\n\
                      on Debian and Ubuntu: apt-get install clang libbpf-dev linux-libc-dev";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");

    let directory = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for build scripts");
    let output = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it for build scripts"))
        .join("classifier.o");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());

    let mut command = Command::new(&clang);
    command
        .current_dir(&directory)
        .args([
            "-target", "bpfel", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror",
        ])
        // The debug information must not depend on where the sources lie.
        .arg(format!("-ffile-prefix-map={directory}=."))
        .args(["-c", SOURCE, "-o"])
        .arg(&output);
    // Debian keeps <asm/types.h> under the machine's name, where `-target bpfel` does not look.
    let multiarch = format!("/usr/include/{}-linux-gnu", env::consts::ARCH);
    if Path::new(&multiarch).is_dir() {
        command.args(["-idirafter", &multiarch]);
    }

    match command.output() {
        Ok(result) if result.status.success() => {}
        Ok(result) => {
            let messages = String::from_utf8_lossy(&result.stderr);
            let reason = if messages.contains("file not found") {
                NEEDED
            } else {
                ""
            };
            fail(&format!(
                "{clang} could not compile {SOURCE}:\n{messages}\n{reason}"
            ));
        }
        Err(error) => fail(&format!("cannot run {clang}: {error}\n{NEEDED}")),
    }
}

fn fail(message: &str) -> ! {
    for line in message.trim_end().lines() {
        println!("cargo::error={line}");
    }
    exit(1)
}
