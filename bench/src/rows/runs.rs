//! Durable runs a second over the whole path, beside what poem does with the same requests.

use crate::budget::Budget;
use crate::error::Error;
use crate::report::Row;
use crate::world::{Measured, Plan, World};

const CLIENTS: [u32; 3] = [1, 32, 128];

/// The mock model's own rate, then Daybook and the echo in turn.
pub async fn measure(world: &World<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    let mock = world.mock(&[]).await?;
    let database = world.database("runs").await?;
    let daybook = world.daybook("daybook", &database, &mock).await?;
    let model = ("model", mock.child.pid());

    world.say("runs: the mock model by itself");
    let plan = Plan::runs(32).streamed().of_model();
    let own = world.load(&[mock.address], plan, &[model]).await?;
    rows.extend(
        Row::of("the mock model by itself, 32 clients", "/s", &[own.outcome.rate]).map(|row| row.note(own.note())),
    );

    let one = world.load(&[daybook.address], Plan::runs(1), &[]).await?;
    let echo = world.echo(one.outcome.bytes).await?;
    for clients in CLIENTS {
        let (mut rates, mut echoes, mut last) = (Vec::new(), Vec::new(), None);
        for repeat in 1..=world.pace.repeats {
            world.say(format!("runs: {clients} clients, {repeat} of {}", world.pace.repeats));
            let watched = [("daybook", daybook.child.pid()), world.watch_postgres(), model];
            let measured = world.load(&[daybook.address], Plan::runs(clients), &watched).await?;
            rates.push(measured.outcome.rate);
            let watched = [("echo", echo.child.pid())];
            let echoed = world.load(&[echo.address], Plan::runs(clients), &watched).await?;
            echoes.push(echoed.outcome.rate);
            last = Some(measured);
        }
        rows.extend(row(clients, &rates, &echoes, last));
    }
    echo.child.stop().await;
    daybook.child.stop().await;
    mock.child.stop().await;
    Ok(())
}

fn row(clients: u32, rates: &[f64], echoes: &[f64], last: Option<Measured>) -> Option<Row> {
    let plural = if clients == 1 { "" } else { "s" };
    let row = Row::of(format!("durable runs, {clients} client{plural}"), "/s", rates)?.beside("poem echo", echoes);
    // One client waits for the disk twice a run: the budget is about what the server can do.
    let row = if clients == 1 { row } else { row.within(Budget::AtLeast(1000.0)) };
    Some(match last {
        Some(last) => row.note(last.note()),
        None => row,
    })
}
