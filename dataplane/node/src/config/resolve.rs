//! From what was given to what is used: order of the sources, defaults, checks of each key and between keys.

use std::path::{Path, PathBuf};

use tracing_subscriber::EnvFilter;
use xtipc_management::{NodeIdentity, runtime_directory};
use xtipc_protocol::crypto::ClearText;
use xtipc_protocol::monitor::Supervision;

use super::value::{Given, number_list};
use super::{
    Access, BearerSpec, Config, ConfigError, InterruptsSpec, LOG_VARIABLE, Settings, Value, XdpMode,
};
use crate::policy::Policy;
use crate::secrets;

const RUN_DIR: &str = "/run/xtipc";
const STATE_DIR: &str = "/var/lib/xtipc";
/// A year.
const REKEYING_MAX: u32 = 60 * 24 * 365;
const CLUSTER_ID: u32 = 4711;
/// As the `tipc` tool has it.
const CLUSTER_ID_MAX: u32 = 9999;
const TOLERANCE_MS: u32 = 1500;
const FRAMES: u32 = 8192;
/// Short conversations are not worth the memory of a channel.
const DIRECT_AFTER: u32 = 32;
const DIRECT_IDLE: u32 = 60;
const SOCKET_MODE: u32 = 0o660;
/// Nonces carry the worker in six bits.
const WORKERS_MAX: u32 = 64;
const CPU_MAX: usize = 1023;
/// As on Linux: bearer ids are 0..2 on the wire.
const BEARERS_MAX: usize = 3;
/// What fits into `sockaddr_un` with its final zero.
const SOCKET_PATH_MAX: usize = 107;

/// The sources of settings, strongest first.
pub(super) struct Layers<'a> {
    pub(super) flags: Settings,
    pub(super) log_variable: Option<Value>,
    pub(super) path: &'a Path,
    pub(super) file: Settings,
}

impl Layers<'_> {
    fn flag<'v>(&self, key: &'static str, value: &'v Value) -> Given<'v> {
        Given {
            origin: format!("command line: --{}", key.replace('_', "-")),
            key,
            value,
        }
    }

    fn line<'v>(&self, key: &'static str, value: &'v Value) -> Given<'v> {
        Given {
            origin: self.path.display().to_string(),
            key,
            value,
        }
    }

    pub(super) fn get<'s>(
        &'s self,
        key: &'static str,
        field: impl Fn(&'s Settings) -> &'s Option<Value>,
    ) -> Option<Given<'s>> {
        let flag = field(&self.flags).as_ref().map(|v| self.flag(key, v));
        flag.or_else(|| field(&self.file).as_ref().map(|v| self.line(key, v)))
    }

    pub(super) fn resolve(&self) -> Result<Config, ConfigError> {
        let instance = self
            .get("instance", |s| &s.instance)
            .map(|g| instance_name(&g))
            .transpose()?;
        let mut run_dir = self.directory("run_dir", |s| &s.run_dir, RUN_DIR)?;
        let mut state_dir = self.directory("state_dir", |s| &s.state_dir, STATE_DIR)?;
        if let Some(name) = &instance {
            run_dir.push(name);
            state_dir.push(name);
        }
        let bearers = self.bearers()?;
        let identity = self
            .get("identity", |s| &s.identity)
            .map(|g| node_identity(&g))
            .transpose()?;
        if identity.is_none() && bearers.is_empty() {
            return Err(ConfigError::Value {
                origin: format!("command line and {}", self.path.display()),
                key: "bearer",
                problem: "there is neither a bearer nor an identity to make the node from".into(),
                accepted: "bearer MEDIA:NAME, or an identity for a node without network".into(),
            });
        }
        let key_exchange = self.key_exchange()?;
        let workers = self.number("workers", |s| &s.workers, 1, 1..=WORKERS_MAX, "")? as usize;
        Ok(Config {
            identity,
            cluster_id: self.number(
                "cluster_id",
                |s| &s.cluster_id,
                CLUSTER_ID,
                1..=CLUSTER_ID_MAX,
                "",
            )?,
            bearers,
            attach_socket: self.attach_socket(&run_dir)?,
            control_socket: run_dir.join("control.sock"),
            attach_access: Access {
                mode: self.mode("attach_mode", |s| &s.attach_mode)?,
                group: self.group("attach_group", |s| &s.attach_group)?,
            },
            control_access: Access {
                mode: self.mode("control_mode", |s| &s.control_mode)?,
                group: self.group("control_group", |s| &s.control_group)?,
            },
            cpus: self.cpus(workers)?,
            interrupts: self.interrupts(workers)?,
            workers,
            policy: self.choice("policy", |s| &s.policy, Policy::Adaptive, &POLICIES)?,
            xdp: self.choice("xdp", |s| &s.xdp, XdpMode::Auto, &XDP_MODES)?,
            tolerance_ms: self.number(
                "tolerance",
                |s| &s.tolerance,
                TOLERANCE_MS,
                50..=30_000,
                " (milliseconds)",
            )?,
            frames: self.number("frames", |s| &s.frames, FRAMES, 1024..=1 << 24, "")?,
            bundling: self.choice("bundling", |s| &s.bundling, true, &BOOLS)?,
            direct_after: self.number(
                "direct_after",
                |s| &s.direct_after,
                DIRECT_AFTER,
                0..=1_000_000,
                " (messages)",
            )?,
            direct_idle: self.number(
                "direct_idle",
                |s| &s.direct_idle,
                DIRECT_IDLE,
                0..=86_400,
                " (seconds)",
            )?,
            supervision: self.choice(
                "supervision",
                |s| &s.supervision,
                Supervision::Auto,
                &SUPERVISION,
            )?,
            key_file: self.key_file("key_file", |s| &s.key_file)?,
            master_key_file: self.key_file("master_key_file", |s| &s.master_key_file)?,
            rekeying_minutes: self.rekeying(key_exchange)?,
            encryption: self.choice(
                "encryption",
                |s| &s.encryption,
                ClearText::Auto,
                &ENCRYPTION,
            )?,
            state_dir,
            log: self.log()?,
            run_dir,
            receive_buffer: self.receive_buffer()?,
            key_exchange,
            broadcast_repair_by_unicast: self.broadcast_repair_by_unicast()?,
            without_effect: self.without_effect()?,
            instance,
        })
    }

    fn bearers(&self) -> Result<Vec<BearerSpec>, ConfigError> {
        let given: Vec<_> = if self.flags.bearer.is_empty() {
            let values = self.file.bearer.iter();
            values.map(|v| self.line("bearer", v)).collect()
        } else {
            let values = self.flags.bearer.iter();
            values.map(|v| self.flag("bearer", v)).collect()
        };
        let mut bearers: Vec<BearerSpec> = Vec::with_capacity(given.len());
        for one in &given {
            let bearer = BearerSpec::parse(one)?;
            // Bearer and link names carry the interface alone, so the VLAN does not make another name.
            if bearers.iter().any(|b| b.interface == bearer.interface) {
                return Err(one.refuse_value(
                    "names an interface that already is a bearer",
                    "each interface once",
                ));
            }
            if bearers.len() == BEARERS_MAX {
                return Err(one.refuse_value("is one bearer too many", "at most 3 bearers"));
            }
            bearers.push(bearer);
        }
        Ok(bearers)
    }

    fn rekeying(&self, key_exchange: bool) -> Result<Option<u32>, ConfigError> {
        let Some(given) = self.get("rekeying", |s| &s.rekeying) else {
            return Ok(None);
        };
        match given.number(0..=REKEYING_MAX, " (minutes)")? {
            minutes if minutes > 0 && !key_exchange => Err(given.refuse_value(
                "makes keys that nobody learns, for key_exchange_enabled is 0",
                "0, or key_exchange_enabled 1",
            )),
            minutes => Ok(Some(minutes)),
        }
    }

    fn attach_socket(&self, run_dir: &Path) -> Result<PathBuf, ConfigError> {
        let accepted = format!("a path of at most {SOCKET_PATH_MAX} bytes");
        // The longest name of a socket in the run directory.
        let longest = run_dir.join("control.sock");
        if longest.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(ConfigError::Value {
                origin: format!("command line or {}", self.path.display()),
                key: "run_dir",
                problem: format!("`{}` is too long for a socket", longest.display()),
                accepted,
            });
        }
        let Some(given) = self.get("socket", |s| &s.socket) else {
            return Ok(run_dir.join("attach.sock"));
        };
        let path = given.absolute_path()?;
        if path.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(given.refuse_value("is too long for a socket", accepted));
        }
        if path == longest {
            return Err(given.refuse_value("is the control socket", "another path"));
        }
        Ok(path)
    }

    fn cpus(&self, workers: usize) -> Result<Vec<usize>, ConfigError> {
        let given = self.get("cpus", |s| &s.cpus);
        given.map_or(Ok(Vec::new()), |given| processors(&given, workers))
    }

    fn interrupts(&self, workers: usize) -> Result<InterruptsSpec, ConfigError> {
        let Some(given) = self.get("interrupts", |s| &s.interrupts) else {
            return Ok(InterruptsSpec::Workers);
        };
        match given.value.to_string().as_str() {
            "workers" => Ok(InterruptsSpec::Workers),
            "leave" => Ok(InterruptsSpec::Leave),
            list if list.starts_with(|c: char| c.is_ascii_digit()) => {
                processors(&given, workers).map(InterruptsSpec::Cpus)
            }
            _ => {
                Err(given.refuse_value("is not known", "workers, leave, or processors like 0,2-3"))
            }
        }
    }

    fn log(&self) -> Result<String, ConfigError> {
        let flag = self.flags.log.as_ref().map(|v| self.flag("log", v));
        let variable = self.log_variable.as_ref().map(|value| Given {
            origin: format!("environment: {LOG_VARIABLE}"),
            key: "log",
            value,
        });
        let line = self.file.log.as_ref().map(|v| self.line("log", v));
        let Some(given) = flag.or(variable).or(line) else {
            return Ok("info".into());
        };
        let text = given.value.to_string();
        // A lone word that is no level would be taken as a target and silence everything.
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        let words_known = text
            .split(',')
            .all(|part| part.contains('=') || levels.contains(&part));
        if words_known && EnvFilter::builder().parse(&text).is_ok() {
            return Ok(text);
        }
        Err(given.refuse_value(
            "is no log filter",
            format!("{}, or target=level,...", levels.join(", ")),
        ))
    }

    /// A file that gives a key now; the daemon reads it again when it starts.
    fn key_file<'s>(
        &'s self,
        key: &'static str,
        field: impl Fn(&'s Settings) -> &'s Option<Value>,
    ) -> Result<Option<PathBuf>, ConfigError> {
        let Some(given) = self.get(key, field) else {
            return Ok(None);
        };
        let path = given.absolute_path()?;
        match secrets::read_key(&path) {
            Ok(_) => Ok(Some(path)),
            Err(error) => Err(given.refuse_value(&error.to_string(), secrets::ACCEPTED)),
        }
    }

    fn directory<'s>(
        &'s self,
        key: &'static str,
        field: impl Fn(&'s Settings) -> &'s Option<Value>,
        default: &str,
    ) -> Result<PathBuf, ConfigError> {
        self.get(key, field)
            .map_or(Ok(default.into()), |g| g.absolute_path())
    }

    pub(super) fn number<'s>(
        &'s self,
        key: &'static str,
        field: impl Fn(&'s Settings) -> &'s Option<Value>,
        default: u32,
        accepted: std::ops::RangeInclusive<u32>,
        unit: &str,
    ) -> Result<u32, ConfigError> {
        self.get(key, field)
            .map_or(Ok(default), |g| g.number(accepted, unit))
    }

    fn choice<'s, T: Copy>(
        &'s self,
        key: &'static str,
        field: impl Fn(&'s Settings) -> &'s Option<Value>,
        default: T,
        choices: &[(&str, T)],
    ) -> Result<T, ConfigError> {
        self.get(key, field)
            .map_or(Ok(default), |g| g.choice(choices))
    }

    fn mode<'s>(
        &'s self,
        key: &'static str,
        field: impl Fn(&'s Settings) -> &'s Option<Value>,
    ) -> Result<u32, ConfigError> {
        self.get(key, field).map_or(Ok(SOCKET_MODE), |g| g.mode())
    }

    fn group<'s>(
        &'s self,
        key: &'static str,
        field: impl Fn(&'s Settings) -> &'s Option<Value>,
    ) -> Result<Option<u32>, ConfigError> {
        self.get(key, field).map(|g| g.group()).transpose()
    }
}

const POLICIES: [(&str, Policy); 3] = [
    ("busy", Policy::Busy),
    ("adaptive", Policy::Adaptive),
    ("sleep", Policy::Sleep),
];

const SUPERVISION: [(&str, Supervision); 3] = [
    ("auto", Supervision::Auto),
    ("mesh", Supervision::Mesh),
    ("ring", Supervision::Ring),
];

const ENCRYPTION: [(&str, ClearText); 3] = [
    ("auto", ClearText::Auto),
    ("required", ClearText::Refused),
    ("mixed", ClearText::Taken),
];

const BOOLS: [(&str, bool); 2] = [("true", true), ("false", false)];

const XDP_MODES: [(&str, XdpMode); 5] = [
    ("auto", XdpMode::Auto),
    ("zerocopy", XdpMode::Zerocopy),
    ("native", XdpMode::Native),
    ("generic", XdpMode::Generic),
    ("off", XdpMode::Off),
];

/// The name becomes a directory, in the place where the tools look for it.
/// One for each worker.
fn processors(given: &Given<'_>, workers: usize) -> Result<Vec<usize>, ConfigError> {
    let Some(cpus) = number_list(&given.value.to_string(), CPU_MAX) else {
        return Err(given.refuse_value(
            "is no list of processors",
            format!("distinct numbers up to {CPU_MAX}, like 0,2-3"),
        ));
    };
    if cpus.len() < workers {
        return Err(given.refuse_value(
            &format!("has fewer processors than there are workers ({workers})"),
            "one processor for each worker",
        ));
    }
    Ok(cpus)
}

fn instance_name(given: &Given<'_>) -> Result<String, ConfigError> {
    let name = given.value.to_string();
    match runtime_directory(Some(&name)) {
        Ok(_) => Ok(name),
        Err(_) => Err(given.refuse_value(
            "is no name of an instance",
            "1 to 32 of 0-9 A-Z a-z . _ -, not starting with . or - and not ending in .sock",
        )),
    }
}

fn node_identity(given: &Given<'_>) -> Result<NodeIdentity, ConfigError> {
    match given.value.to_string().parse::<NodeIdentity>() {
        Ok(identity) if !identity.is_unset() => Ok(identity),
        _ => Err(given.refuse_value(
            "is no node identity",
            "up to 16 of 0-9 A-Z a-z . : _ @ -, or up to 32 hex digits that are not all zero",
        )),
    }
}
