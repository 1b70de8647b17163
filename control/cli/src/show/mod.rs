//! Asks the daemon and makes text or JSON of its facts.
//!
//! The text of what the tipc tool prints is fixed to the byte, for scripts parse it.

mod bearer;
mod link;
mod node;
mod socket;
mod status;

use serde::Serialize;
use xtipc_management::{Client, ClientError, LinkFilter};

use crate::Error;
use crate::commands::Command;
use crate::grammar::Typed;
use crate::json::render;
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
            out.print(
                &value,
                |value| node::single(key, *value),
                |value| format!("{value}\n"),
            )
        }
        Command::MediaList => out.print(&*connect()?.media()?, |all| all, bearer::media_text),
        Command::MediaGet(property) => {
            let name = typed.value("media").ok_or(Error::MissingMedia)?;
            let (key, value) = bearer::media_property(&connect()?.media()?, name, property)?;
            out.print(
                &value,
                |value| node::single(key, *value),
                |value| format!("{value}\n"),
            )
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
            out.print(&*connect()?.sockets(details)?, |all| all, socket::list_text)
        }
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
