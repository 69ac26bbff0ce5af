//! What Daybook adds to the model's time, seen by one client. The model takes 20 ms to its first token and 2 ms for each
//! of the nine that follow; its own time is measured with the same client.

use crate::budget::Budget;
use crate::error::Error;
use crate::report::Row;
use crate::world::{Plan, World};

const MODEL: [&str; 6] = ["--first-token-ms", "20", "--between-tokens-ms", "2", "--tokens", "10"];

/// The model, plain runs and streaming runs in turn.
pub async fn measure(world: &World<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    let mock = world.mock(&MODEL).await?;
    let database = world.database("latency").await?;
    let daybook = world.daybook("daybook", &database, &mock).await?;
    let (mut whole, mut first) = (Vec::new(), Vec::new());
    let (mut model_whole, mut model_first, mut note) = (Vec::new(), Vec::new(), String::new());
    for repeat in 1..=world.pace.repeats {
        world.say(format!("latency: {repeat} of {}", world.pace.repeats));
        let stream = Plan::runs(1).streamed();
        let model = world.load(&[mock.address], stream.of_model(), &[]).await?.outcome;
        let watched = [("daybook", daybook.child.pid()), world.watch_postgres()];
        let plain = world.load(&[daybook.address], Plan::runs(1), &watched).await?;
        let streamed = world.load(&[daybook.address], stream, &watched).await?;
        whole.push(plain.outcome.latency.p50 - model.latency.p50);
        first.push(streamed.outcome.first_token.p50 - model.first_token.p50);
        model_whole.push(model.latency.p50);
        model_first.push(model.first_token.p50);
        let (plain, streamed) = (plain.note(), streamed.note());
        note = format!("the last plain load: {plain}; the last streaming load: {streamed}");
    }
    let row = Row::of("overhead of a run at 1 client, p50", "ms", &whole);
    rows.extend(row.map(|row| row.within(Budget::AtMost(5.0)).note(model_note(&model_whole)).note(note)));
    let row = Row::of("overhead to the first token at 1 client, p50", "ms", &first);
    rows.extend(row.map(|row| row.within(Budget::AtMost(2.0)).note(model_note(&model_first))));
    daybook.child.stop().await;
    mock.child.stop().await;
    Ok(())
}

fn model_note(times: &[f64]) -> String {
    let times: Vec<String> = times.iter().map(|time| format!("{time:.2}")).collect();
    format!("beyond the model's own {} ms", times.join(", "))
}
