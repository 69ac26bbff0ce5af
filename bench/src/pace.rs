//! How long and how often things are measured.

/// The lengths of a full or a quick run of the table.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Seconds of load before a measurement.
    pub warm_up: f64,
    /// Seconds of one measurement.
    pub seconds: f64,
    /// How often each is repeated; the table shows the median.
    pub repeats: u32,
    /// Seconds of load that fill the log which is read back.
    pub fill: f64,
    /// Runs that wait for a person.
    pub waiting: u64,
    /// How often a start is timed.
    pub starts: u32,
    /// The limit of the whole table, in seconds.
    pub limit: u64,
    /// agno's databases and workers.
    pub agno: &'static [(AgnoDb, u32)],
    /// The same for its teams and workflows: the best with either database.
    pub agno_teams: &'static [(AgnoDb, u32)],
}

/// Where agno keeps its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgnoDb {
    /// `SqliteDb`, a file.
    Sqlite,
    /// `PostgresDb`.
    Postgres,
    /// `AsyncPostgresDb`.
    AsyncPostgres,
}

impl Pace {
    /// Of `make bench`.
    pub const FULL: Self = Self {
        warm_up: 2.0,
        seconds: 6.0,
        repeats: 3,
        fill: 20.0,
        waiting: 100_000,
        starts: 7,
        limit: 25 * 60 - 15,
        agno: &[
            (AgnoDb::Sqlite, 1),
            (AgnoDb::Sqlite, 2),
            (AgnoDb::Sqlite, 4),
            (AgnoDb::Postgres, 1),
            (AgnoDb::Postgres, 2),
            (AgnoDb::Postgres, 4),
            (AgnoDb::AsyncPostgres, 1),
            (AgnoDb::AsyncPostgres, 2),
            (AgnoDb::AsyncPostgres, 4),
        ],
        agno_teams: &[(AgnoDb::Sqlite, 4), (AgnoDb::Postgres, 4)],
    };

    /// Of `make bench QUICK=1`: says whether things work and about where they are.
    pub const QUICK: Self = Self {
        warm_up: 0.5,
        seconds: 1.5,
        repeats: 2,
        fill: 5.0,
        waiting: 5_000,
        starts: 3,
        limit: 4 * 60 - 10,
        agno: &[(AgnoDb::Sqlite, 2), (AgnoDb::Postgres, 2)],
        agno_teams: &[(AgnoDb::Sqlite, 4), (AgnoDb::Postgres, 4)],
    };
}
