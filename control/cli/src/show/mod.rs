//! Asks the daemon and makes text or JSON of its facts.
//!
//! The text of what the tipc tool prints is fixed to the byte, for scripts parse it.

mod bearer;
mod link;
mod node;
mod socket;
mod status;

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
    let json = options.json;
    let pretty = options.pretty;
    Ok(match typed.command {
        Command::NodeList => {
            let nodes = connect()?.nodes()?;
            if json {
                render(&node::list_json(&nodes), pretty)?
            } else {
                node::list_text(&nodes)
            }
        }
        Command::NodeGetIdentity => {
            let own = connect()?.node()?;
            if json {
                render(&node::identity_json(&own), pretty)?
            } else {
                node::identity_text(&own)
            }
        }
        Command::NodeGetAddress => {
            let own = connect()?.node()?;
            if json {
                render(&node::address_json(&own), pretty)?
            } else {
                format!("{:08x}\n", own.address)
            }
        }
        Command::NodeGetClusterId => {
            let own = connect()?.node()?;
            if json {
                render(&node::cluster_id_json(&own), pretty)?
            } else {
                format!("{}\n", own.cluster_id)
            }
        }
        Command::LinkList => {
            let links = connect()?.links()?;
            if json {
                render(&link::list_json(&links), pretty)?
            } else {
                link::list_text(&links)
            }
        }
        Command::LinkStatisticsShow => {
            let filter = typed
                .value("link")
                .map_or(LinkFilter::Usual, LinkFilter::from_text);
            let links = connect()?.link_statistics(filter)?;
            if json {
                render(&link::statistics_json(&links), pretty)?
            } else {
                link::statistics_text(&links)
            }
        }
        Command::LinkGet(property) => {
            let name = typed.value("link").ok_or(Error::MissingLink)?;
            let (key, value) = link::property(&connect()?.link(name.to_owned())?, property)?;
            if json {
                render(&node::single(key, value), pretty)?
            } else {
                format!("{value}\n")
            }
        }
        Command::MediaList => {
            let media = connect()?.media()?;
            if json {
                render(&media, pretty)?
            } else {
                bearer::media_text(&media)
            }
        }
        Command::MediaGet(property) => {
            let name = typed.value("media").ok_or(Error::MissingMedia)?;
            let (key, value) = bearer::media_property(&connect()?.media()?, name, property)?;
            if json {
                render(&node::single(key, value), pretty)?
            } else {
                format!("{value}\n")
            }
        }
        Command::BearerList => {
            let bearers = connect()?.bearers()?;
            if json {
                render(&bearers, pretty)?
            } else {
                bearer::list_text(&bearers, options.details)
            }
        }
        Command::NametableShow => {
            let table = connect()?.name_table()?;
            if json {
                render(&socket::table_json(&table), pretty)?
            } else {
                socket::table_text(&table)
            }
        }
        Command::SocketList => {
            let sockets = connect()?.sockets()?;
            if json {
                render(&sockets, pretty)?
            } else {
                socket::list_text(&sockets, options.details)
            }
        }
        Command::Status => {
            let status = connect()?.status()?;
            if json {
                render(&[status::json(&status)], pretty)?
            } else {
                status::text(&status)
            }
        }
    })
}

/// A name that others chose, such as a peer or an attached process, made harmless for a terminal and for scripts that
/// read lines.
fn printable(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
