//! One, two and four nodes on one log. On few cores they share what one had: this shows what the sharing costs.

use std::net::SocketAddr;

use crate::error::Error;
use crate::report::Row;
use crate::world::{Plan, Server, World};

const CLIENTS: u32 = 128;

/// Each number of nodes on a database of its own; the anchor of the others is one node.
pub async fn measure(world: &World<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    let mock = world.mock(&[]).await?;
    let mut one = Vec::new();
    for count in [1, 2, 4] {
        let database = world.database(&format!("nodes_{count}")).await?;
        let mut nodes: Vec<Server> = Vec::new();
        for n in 1..=count {
            nodes.push(world.daybook(&format!("daybook{n}"), &database, &mock).await?);
        }
        let targets: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
        let (mut rates, mut note) = (Vec::new(), String::new());
        for repeat in 1..=world.pace.repeats {
            world.say(format!("nodes: {count}, {repeat} of {}", world.pace.repeats));
            let mut watched = vec![world.watch_postgres(), ("model", mock.child.pid())];
            watched.extend(nodes.iter().map(|node| ("daybook", node.child.pid())));
            let measured = world.load(&targets, Plan::runs(CLIENTS), &watched).await?;
            rates.push(measured.outcome.rate);
            note = measured.note();
        }
        for node in nodes {
            node.child.stop().await;
        }
        let what = format!("{count} node{} on one log, {CLIENTS} clients", if count == 1 { "" } else { "s" });
        if one.is_empty() {
            one.clone_from(&rates);
        }
        rows.extend(Row::of(what, "/s", &rates).map(|row| row.beside("1 node", &one).note(note)));
    }
    mock.child.stop().await;
    Ok(())
}
