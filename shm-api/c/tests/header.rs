//! The headers are what the sources say: those in `include/xtipc` are compared with what cbindgen makes of the sources. After a change
//! of the functions: `XTIPC_WRITE_HEADERS=1 cargo test -p xtipc-c --test header`.

use std::fs;
use std::path::{Path, PathBuf};

struct Header {
    name: &'static str,
    about: &'static str,
    includes: &'static [&'static str],
    /// In the order of the header.
    sources: &'static [&'static str],
}

const HEADERS: [Header; 2] = [
    Header {
        name: "tipcc",
        about: "
 * The functions of libtipc, for sockets of xtipc: libxtipc(3).
 *
 * A socket is a file descriptor. Functions that return an int return -1 if they fail, and say why in errno. Pointers to results that
 * are not wanted may be NULL.",
        includes: &["stdbool.h", "stddef.h", "stdint.h", "sys/socket.h", "sys/types.h", "linux/tipc.h"],
        sources: &["address", "sockets", "messages", "topology"],
    },
    Header {
        name: "xtipc",
        about: "
 * What libxtipc has beside the functions of libtipc: libxtipc(3).
 *
 * Functions that return a pointer return NULL if they fail, and say why in errno, as those that return an int do by -1. What they give
 * is given back once, by the function that says so.",
        includes: &["poll.h", "stddef.h", "stdint.h", "xtipc/tipcc.h"],
        sources: &["waiting", "direct"],
    },
];

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

impl Header {
    fn path(&self) -> PathBuf {
        at(&format!("include/xtipc/{}.h", self.name))
    }

    fn generated(&self) -> String {
        let mut config = cbindgen::Config::from_file(at("cbindgen.toml")).unwrap();
        config.include_guard = Some(format!("XTIPC_{}_H", self.name.to_uppercase()));
        config.header = Some(format!(
            "/*{}\n *\n * Made of the sources of the crate xtipc-c; not to be edited.\n */",
            self.about
        ));
        config.sys_includes = self.includes.iter().map(|name| (*name).into()).collect();
        if !self.sources.contains(&"address") {
            // It is in a header that is included.
            let rename = ("tipc_addr".into(), "struct tipc_addr".into());
            config.export.rename.extend([rename]);
        }
        let mut builder = cbindgen::Builder::new().with_config(config);
        for source in self.sources {
            builder = builder.with_src(at(&format!("src/{source}.rs")));
        }
        let mut text = Vec::new();
        builder.generate().unwrap().write(&mut text);
        String::from_utf8(text).unwrap()
    }

    /// The names of its functions.
    fn functions(&self) -> Vec<String> {
        let text = self.generated();
        text.lines()
            .filter(|line| line.contains('(') && !line.starts_with([' ', '/', '*', '#']))
            .filter_map(|line| line.split('(').next()?.rsplit([' ', '*']).next())
            .map(str::to_owned)
            .collect()
    }
}

#[test]
fn the_headers_are_those_of_the_sources() {
    for header in HEADERS {
        let generated = header.generated();
        if std::env::var_os("XTIPC_WRITE_HEADERS").is_some() {
            fs::write(header.path(), &generated).unwrap();
        }
        let committed = fs::read_to_string(header.path()).unwrap_or_default();
        assert!(
            committed == generated,
            "{} is not what the sources say: write it anew with XTIPC_WRITE_HEADERS=1",
            header.path().display()
        );
    }
}

/// Each function of the headers, and nothing else, has the library's version.
#[test]
fn every_function_of_the_headers_has_a_version() {
    let map = fs::read_to_string(at("xtipc.map")).unwrap();
    let mut versioned: Vec<&str> = map
        .lines()
        .filter_map(|line| line.trim().strip_suffix(';'))
        .collect();
    versioned.retain(|name| !name.starts_with('}'));
    let mut declared: Vec<String> = HEADERS.iter().flat_map(Header::functions).collect();
    declared.sort_unstable();
    assert_eq!(declared, versioned);
}
