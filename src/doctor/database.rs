//! The database: whether it is there, lets us in, fits this program and its key, and who else is on it.

use std::time::Duration;

use daybook_domain::LogId;
use daybook_projections::views_stand;
use daybook_store::embedded::{EmbeddedOptions, Look};
use daybook_store::{Inspection, MasterKey, NodeSeen, StoreError, connect_to_look, inspect};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;

use super::Finding;
use crate::config::Settings;
use crate::database::{LOOKS_LIKE, check_url};
use crate::error::Error;
use crate::key;

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The oldest PostgreSQL that is served.
const OLDEST: i32 = 14;
/// After this long without a sign, a node counts as dead.
const SILENCE: f64 = 6.0;
/// A view this far behind while servers run does not keep up.
const BEHIND: u64 = 10_000;
/// Clocks further apart than this make times look odd.
const CLOCKS_APART_MS: u64 = 2000;

pub(super) async fn look(settings: &Settings, variables: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let key = match master_key(settings, variables) {
        Ok((key, finding)) => {
            findings.extend(finding);
            key
        }
        Err(error) => {
            findings.push(Finding::error("master key", &error));
            None
        }
    };
    let url = match &settings.database_url {
        Some(url) => given(url, &mut findings),
        None => private(settings, &mut findings).await,
    };
    let Some(url) = url else { return findings };
    match timeout(PATIENCE, Box::pin(ask(&url, settings, key.as_ref()))).await {
        Ok(Ok(asked)) => findings.extend(asked),
        Ok(Err(error)) => findings.push(refused(&error)),
        Err(_) => {
            let says = format!("the database did not answer within {} s", PATIENCE.as_secs());
            findings.push(Finding::problem("database", says, "look whether it is overloaded, or the network is slow"));
        }
    }
    findings
}

/// The key there is; none is made here.
fn master_key(
    settings: &Settings,
    variables: impl Fn(&str) -> Option<String>,
) -> Result<(Option<MasterKey>, Option<Finding>), Error> {
    if let Some(key) = key::given(variables)? {
        return Ok((Some(key), Some(Finding::ok("master key", "DAYBOOK_MASTER_KEY is set"))));
    }
    let path = settings.data_dir.join(key::FILE);
    if path.exists() {
        let key = MasterKey::load_or_create(&path)?;
        return Ok((Some(key), Some(Finding::ok("master key", format!("{} is there", path.display())))));
    }
    match settings.database_url {
        Some(_) => Err(Error::NoMasterKey),
        None => Ok((None, Some(Finding::ok("master key", "one will be made at the first start")))),
    }
}

fn given(url: &SecretString, findings: &mut Vec<Finding>) -> Option<SecretString> {
    match check_url(url.expose_secret()) {
        Ok(()) => Some(url.clone()),
        Err(fault) => {
            let says = format!("the database's URL cannot be used: {fault}");
            findings.push(Finding::problem("database", says, format!("it looks like {LOOKS_LIKE}")));
            None
        }
    }
}

/// The private PostgreSQL, when it runs. One that does not is not started: that is what `serve` is for.
async fn private(settings: &Settings, findings: &mut Vec<Finding>) -> Option<SecretString> {
    let options = EmbeddedOptions { dir: settings.data_dir.clone(), bin_dir: settings.postgres_bin_dir.clone() };
    let Look { data, data_version, running, programs } = daybook_store::embedded::look(&options).await;
    findings.push(match programs {
        Ok((dir, major)) => Finding::ok("postgresql", format!("version {major} in {}", dir.display())),
        // What runs needs them only to be started again.
        Err(error) => Finding::error("postgresql", &error),
    });
    if running.is_none() {
        findings.push(match data_version {
            None => Finding::ok("database", format!("a private one will be made in {}", data.display())),
            Some(_) => {
                let says = "the private one does not run, so nothing in it was looked at; `daybook serve` starts it";
                Finding::ok("database", says)
            }
        });
    }
    running
}

fn refused(error: &StoreError) -> Finding {
    let mend = "check the URL's host, port, user, password and database, and whether PostgreSQL runs there";
    let says = match error {
        StoreError::Database(sqlx::Error::Database(answer)) => format!("the database refused: {}", answer.message()),
        StoreError::Unavailable(why) => format!("the database cannot be reached: {why}"),
        other => other.to_string(),
    };
    Finding::problem("database", says, mend)
}

async fn ask(url: &SecretString, settings: &Settings, key: Option<&MasterKey>) -> Result<Vec<Finding>, StoreError> {
    let mut db = connect_to_look(url).await?;
    let seen = inspect(&mut db, key).await?;
    let mut findings = vec![server(&seen)];
    findings.push(migrations(&seen));
    findings.extend(fitting_key(&seen));
    findings.push(clock(&seen));
    findings.extend(connections(&seen, settings));
    findings.extend(nodes(&seen.nodes));
    if seen.migrations.pending == 0 && seen.migrations.unknown == 0 {
        let live = seen.nodes.iter().any(|node| node.silent_seconds < SILENCE);
        match views_stand(&mut db, LogId::DEFAULT).await {
            Ok(views) => findings.extend(views.into_iter().map(|view| {
                let name = view.name;
                let mend = "its error is a defect or damage: the rest goes on; report it with the log";
                match view.parked.first() {
                    Some((stream, error)) => {
                        let says = format!("{name}: {} streams are parked, first {stream}: {error}", view.parked.len());
                        Finding::problem("view", says, mend)
                    }
                    None if live && view.behind > BEHIND => {
                        let says = format!("{name}: {} events behind the log, although a server runs", view.behind);
                        Finding::warning("view", says, "look at the servers' logs and at the database's load")
                    }
                    None => Finding::ok("view", format!("{name}: {} events behind the log", view.behind)),
                }
            })),
            Err(error) => findings.push(Finding::error("view", &error)),
        }
    }
    Ok(findings)
}

fn server(seen: &Inspection) -> Finding {
    let (version, role) = (seen.version / 10_000, &seen.role);
    if version < OLDEST {
        let says = format!("the database is PostgreSQL {version}");
        return Finding::problem("database", says, format!("use PostgreSQL {OLDEST} or newer"));
    }
    if seen.lacks.is_empty() {
        return Finding::ok(
            "database",
            format!("PostgreSQL {version} lets {role} in, with all rights that are needed"),
        );
    }
    let says = format!("PostgreSQL {version} lets {role} in, who lacks {}", seen.lacks.join(" and "));
    let mend = format!("as an administrator: GRANT CREATE ON SCHEMA public TO \"{role}\"; or let it own the database");
    Finding::problem("database", says, mend)
}

fn migrations(seen: &Inspection) -> Finding {
    let found = seen.migrations;
    if found.unknown > 0 {
        let says = "a newer Daybook has migrated the database";
        return Finding::problem("migrations", says, "use that version, or a newer one");
    }
    if found.failed > 0 {
        let says = format!("{} migrations broke off", found.failed);
        return Finding::problem("migrations", says, "restore the last backup, or ask for help with the log");
    }
    match (found.known, found.pending) {
        (_, 0) => Finding::ok("migrations", "the database is at this program's version"),
        (0, _) => Finding::ok("migrations", "the database is empty; the first start migrates it"),
        (_, pending) => {
            let says = format!("the database is {pending} migrations behind this program");
            Finding::warning(
                "migrations",
                says,
                "the next start migrates it, or `daybook migrate`; make a backup before",
            )
        }
    }
}

fn fitting_key(seen: &Inspection) -> Option<Finding> {
    Some(match seen.key_fits? {
        true => Finding::ok("master key", "it is the one the database was made with"),
        false => Finding::problem(
            "master key",
            "it is not the one the database was made with",
            "find the right one: without it nothing personal in the log can be read",
        ),
    })
}

fn clock(seen: &Inspection) -> Finding {
    let apart = seen.clock_ahead_ms;
    let which = if apart < 0 { "behind" } else { "ahead of" };
    let says = format!("the database's clock is {} ms {which} this machine's", apart.unsigned_abs());
    if apart.unsigned_abs() > CLOCKS_APART_MS {
        Finding::warning(
            "clock",
            says,
            "let both set their clocks by NTP; nothing is lost meanwhile, but times look odd",
        )
    } else {
        Finding::ok("clock", says)
    }
}

fn connections(seen: &Inspection, settings: &Settings) -> Option<Finding> {
    let ((most, used), wanted) = (seen.connections, i64::from(settings.limits.database_connections.get()));
    let served = seen.nodes.iter().any(|node| node.silent_seconds < SILENCE);
    // A node that runs has its own already.
    let short = !served && most - used < wanted;
    let says = format!("{used} of {most} connections are used, and a node takes up to {wanted}");
    short.then(|| {
        let mend = "raise max_connections of PostgreSQL, or lower server.limits.database_connections";
        Finding::warning("connections", says, mend)
    })
}

fn nodes(all: &[NodeSeen]) -> Vec<Finding> {
    let shown = |node: &NodeSeen| format!("{} (pid {})", node.host.split('/').next().unwrap_or_default(), node.pid);
    let (live, silent): (Vec<_>, Vec<_>) = all.iter().partition(|node| node.silent_seconds < SILENCE);
    let names: Vec<String> = live.into_iter().map(shown).collect();
    let says = if names.is_empty() { "no node runs".to_owned() } else { format!("running: {}", names.join(", ")) };
    let mut findings = vec![Finding::ok("nodes", says)];
    findings.extend(silent.into_iter().map(|node| {
        let says = format!("{} has been silent for {:.0} s", shown(node), node.silent_seconds);
        Finding::warning("nodes", says, "if it is dead, its runs go on as soon as a node with their agents runs")
    }));
    findings
}
