//! The header is what the sources say: `include/xtipc/tipcc.h` is compared with what cbindgen makes of them. After a change of the
//! functions: `XTIPC_WRITE_HEADER=1 cargo test -p xtipc-c --test header`.

use std::fs;
use std::path::{Path, PathBuf};

/// In the order of the header.
const SOURCES: [&str; 4] = ["address", "sockets", "messages", "topology"];

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn generated() -> String {
    let config = cbindgen::Config::from_file(at("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(at(&format!("src/{source}.rs")));
    }
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn the_header_is_that_of_the_sources() {
    let path = at("include/xtipc/tipcc.h");
    let generated = generated();
    if std::env::var_os("XTIPC_WRITE_HEADER").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "{} is not what the sources say: write it anew with XTIPC_WRITE_HEADER=1",
        path.display()
    );
}

/// Each function of the header, and nothing else, has the library's version.
#[test]
fn every_function_of_the_header_has_a_version() {
    let map = fs::read_to_string(at("xtipc.map")).unwrap();
    let mut versioned: Vec<&str> = map
        .lines()
        .filter_map(|line| line.trim().strip_suffix(';'))
        .collect();
    versioned.retain(|name| !name.starts_with('}'));
    let header = generated();
    let mut declared: Vec<&str> = header
        .lines()
        .filter(|line| line.contains('(') && !line.starts_with([' ', '/', '*', '#']))
        .filter_map(|line| line.split('(').next()?.rsplit([' ', '*']).next())
        .collect();
    declared.sort_unstable();
    assert_eq!(declared, versioned);
}
