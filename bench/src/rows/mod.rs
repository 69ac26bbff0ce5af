//! The rows of the table, in the order in which they are measured.

mod agno;
mod append;
mod latency;
mod loops;
mod memory;
mod nodes;
mod reading;
mod runs;
mod teams;
mod waiting;
mod websocket;

use clap::ValueEnum;

use crate::error::Error;
use crate::report::Row;
use crate::world::World;

/// A group of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Durable runs a second, beside the echo.
    Runs,
    /// Appends to the log, beside pgbench.
    Append,
    /// Memory and start time.
    Memory,
    /// What Daybook adds to the model's time.
    Latency,
    /// Durable runs a second, beside agno.
    Agno,
    /// Several nodes on one log.
    Nodes,
    /// Reading the log and posting the views.
    Reading,
    /// Runs that wait for a person.
    Waiting,
    /// WebSockets, each with a run of its own.
    Websocket,
    /// Runs of teams and workflows, beside agno.
    Teams,
}

impl Group {
    /// All, in the order in which they are measured.
    pub const ALL: [Self; 10] = [
        Self::Runs,
        Self::Append,
        Self::Memory,
        Self::Latency,
        Self::Agno,
        Self::Nodes,
        Self::Reading,
        Self::Waiting,
        Self::Websocket,
        Self::Teams,
    ];

    /// Its name, as on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Measures; rows that are complete stay in `rows` whatever comes after.
    pub async fn measure(self, world: &World<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
        match self {
            Self::Runs => runs::measure(world, rows).await,
            Self::Append => append::measure(world, rows).await,
            Self::Memory => memory::measure(world, rows).await,
            Self::Latency => latency::measure(world, rows).await,
            Self::Agno => agno::measure(world, rows).await,
            Self::Nodes => nodes::measure(world, rows).await,
            Self::Reading => reading::measure(world, rows).await,
            Self::Waiting => waiting::measure(world, rows).await,
            Self::Websocket => websocket::measure(world, rows).await,
            Self::Teams => teams::measure(world, rows).await,
        }
    }
}
