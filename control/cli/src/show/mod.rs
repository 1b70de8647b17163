//! Asks the daemon and makes text or JSON of its facts.
//!
//! The text of what the tipc tool prints is fixed to the byte, for scripts parse it.

mod bearer;
mod holders;
mod keys;
mod link;
mod monitor;
mod node;
mod socket;
mod status;

use serde::Serialize;
use xtipc_management::{Client, ClientError, LinkFilter, Request};

use crate::Error;
use crate::bearer as words;
use crate::commands::Command;
use crate::grammar::{GrammarError, Typed};
use crate::json::render;
use crate::key;
use crate::options::Options;

/// Carries out a command; the result is what goes to stdout.
pub(crate) fn answer(
    typed: &Typed<Command>,
    options: &Options,
    connect: impl FnOnce() -> Result<Client, ClientError>,
) -> Result<String, Error> {
    let out = Output { options };
    let details = options.details;
    match typed.command {
        Command::NodeList => out.print(&*connect()?.nodes()?, node::list_json, node::list_text),
        Command::NodeGetIdentity => out.print(
            &connect()?.node()?,
            node::identity_json,
            node::identity_text,
        ),
        Command::NodeGetAddress => {
            out.print(&connect()?.node()?, node::address_json, node::address_text)
        }
        Command::NodeGetClusterId => out.print(
            &connect()?.node()?,
            node::cluster_id_json,
            node::cluster_id_text,
        ),
        Command::MonitorGetThreshold => {
            out.print_number("threshold", connect()?.monitors()?.threshold)
        }
        Command::MonitorSetThreshold => {
            let threshold = typed.number.unwrap_or_default();
            out.change(connect, &Request::MonitorSet { threshold })
        }
        Command::MonitorSummary => out.print(
            &connect()?.monitors()?,
            monitor::summary_json,
            monitor::summary_text,
        ),
        Command::MonitorList => {
            let bearer = typed
                .value("media")
                .map(|_| words::name(typed))
                .transpose()?;
            let monitors = monitor::selected(connect()?.monitors()?, bearer.as_deref());
            out.print(&monitors, monitor::list_json, monitor::list_text)
        }
        Command::NodeGetKey => out.print(&connect()?.keys()?, |keys| [*keys], keys::text),
        Command::NodeSetKey => out.change(connect, &key::request(typed)?),
        Command::NodeFlushKey => out.change(connect, &Request::KeyFlush),
        Command::LinkList => out.print(&*connect()?.links()?, link::list_json, link::list_text),
        Command::LinkStatisticsShow => {
            let filter = typed
                .value("link")
                .map_or(LinkFilter::Usual, LinkFilter::from_text);
            let links = connect()?.link_statistics(filter)?;
            out.print(&*links, link::statistics_json, link::statistics_text)
        }
        Command::LinkGet(property) => {
            let name = typed.value("link").ok_or(Error::MissingLink)?;
            let (key, value) = link::property(&connect()?.link(name.to_owned())?, property)?;
            out.print_number(key, value)
        }
        Command::BearerEnable => {
            let bearer = words::specification(typed)?;
            out.change(connect, &Request::BearerEnable { bearer })
        }
        Command::BearerDisable => {
            let name = words::name(typed)?;
            out.change(connect, &Request::BearerDisable { name })
        }
        Command::BearerSet(property) => {
            let (name, value) = (words::name(typed)?, typed.number.unwrap_or_default());
            let request = Request::BearerSet {
                name,
                property,
                value,
            };
            out.change(connect, &request)
        }
        Command::BearerGet(property) => {
            let name = words::name(typed)?;
            let (key, value) = bearer::property(&connect()?.bearers()?, &name, property)?;
            out.print_number(key, value)
        }
        Command::BearerGetUdp => {
            let name = words::name(typed)?;
            bearer::udp_text(&connect()?.bearers()?, &name, |key| {
                typed.value(key).is_some()
            })
        }
        Command::BearerAdd => {
            let (name, remote) = (words::name(typed)?, words::remote(typed)?);
            out.change(connect, &Request::BearerAdd { name, remote })
        }
        Command::BearerRemove => {
            let (name, remote) = (words::name(typed)?, words::remote(typed)?);
            out.change(connect, &Request::BearerRemove { name, remote })
        }
        Command::LinkSet(property) => {
            let name = typed.value("link").ok_or(Error::MissingLink)?.to_owned();
            let value = typed.number.unwrap_or_default();
            let request = Request::LinkSet {
                name,
                property,
                value,
            };
            out.change(connect, &request)
        }
        Command::MediaSet(property) => {
            let name = typed.value("media").ok_or(Error::MissingMedia)?.to_owned();
            let value = typed.number.unwrap_or_default();
            let request = Request::MediaSet {
                name,
                property,
                value,
            };
            out.change(connect, &request)
        }
        Command::MediaList => out.print(&*connect()?.media()?, |all| all, bearer::media_text),
        Command::MediaGet(property) => {
            let name = typed.value("media").ok_or(Error::MissingMedia)?;
            let (key, value) = bearer::media_property(&connect()?.media()?, name, property)?;
            out.print_number(key, value)
        }
        Command::BearerList => {
            let text = |all: &_| bearer::list_text(all, details);
            out.print(&*connect()?.bearers()?, |all| all, text)
        }
        Command::NametableShow => out.print(
            &*connect()?.name_table()?,
            socket::table_json,
            socket::table_text,
        ),
        Command::SocketList => {
            let mut sockets = connect()?.sockets(details)?;
            holders::complete(&mut sockets);
            out.print(&*sockets, |all| all, socket::list_text)
        }
        // Only in full is it the word behind which all is the program's.
        Command::Run => Err(GrammarError::InvalidCommand("run".into()).into()),
        Command::Status => out.print(
            &*connect()?.status()?,
            |status| [status::json(status)],
            status::text,
        ),
    }
}

/// Where the options ask for JSON, JSON; else text.
struct Output<'a> {
    options: &'a Options,
}

impl Output<'_> {
    /// Has the daemon change something, which prints nothing.
    fn change(
        &self,
        connect: impl FnOnce() -> Result<Client, ClientError>,
        request: &Request,
    ) -> Result<String, Error> {
        connect()?.change(request)?;
        Ok(String::new())
    }

    fn print_number(&self, key: &'static str, value: u32) -> Result<String, Error> {
        self.print(
            &value,
            |value| node::single(key, *value),
            |value| format!("{value}\n"),
        )
    }

    fn print<'f, F: ?Sized, J: Serialize>(
        &self,
        facts: &'f F,
        json: impl FnOnce(&'f F) -> J,
        text: impl FnOnce(&'f F) -> String,
    ) -> Result<String, Error> {
        if self.options.json {
            Ok(render(&json(facts), self.options.pretty)?)
        } else {
            Ok(text(facts))
        }
    }
}

/// A name that others chose, such as a peer or an attached process, made harmless for a terminal and for scripts that
/// read lines.
fn printable(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
