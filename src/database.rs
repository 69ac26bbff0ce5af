//! Opening and closing the database: the private PostgreSQL where there is no other, then the log on it.

use std::str::FromStr as _;
use std::time::Duration;

use daybook_domain::redact::Redactor;
use daybook_store::embedded::{Embedded, EmbeddedOptions};
use daybook_store::{MasterKey, Store, StoreError, StoreOptions};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::time::timeout;

use crate::config::Settings;
use crate::error::Error;
use crate::key;

/// What a database's URL looks like.
pub(crate) const LOOKS_LIKE: &str = "postgres://user:password@host:5432/database";
/// How long one more try may take that is made to learn why the others failed.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// The database as it is opened: its own process, if it has one, and the log.
pub(crate) struct Database {
    embedded: Option<Embedded>,
    /// The log.
    pub(crate) store: Store,
}

impl Database {
    /// Opens the database that is configured, or the private one.
    pub(crate) async fn open(settings: &Settings, master_key: Option<MasterKey>) -> Result<Self, Error> {
        let variable = |name: &str| std::env::var(name).ok();
        // A wrong one is told before anything is started.
        let given = match master_key {
            Some(key) => Some(key),
            None => key::given(variable)?,
        };
        let key = || given.map_or_else(|| key::find(settings, variable), Ok);
        if let Some(url) = &settings.database_url {
            check_url(url.expose_secret()).map_err(StoreError::BadUrl)?;
            let store = match Store::open(store_options(settings, url.clone(), key()?)).await {
                Ok(store) => store,
                Err(error) => return Err(explain(error, url).await),
            };
            return Ok(Self { embedded: None, store });
        }
        let (dir, bin_dir) = (settings.data_dir.clone(), settings.postgres_bin_dir.clone());
        let embedded = Embedded::start(EmbeddedOptions { dir, bin_dir }).await?;
        let opened = match key() {
            Ok(key) => Store::open(store_options(settings, embedded.url(), key)).await.map_err(Error::from),
            Err(error) => Err(error),
        };
        match opened {
            Ok(store) => Ok(Self { embedded: Some(embedded), store }),
            Err(error) => {
                if let Err(second) = embedded.stop().await {
                    tracing::warn!(error = %second, "the embedded PostgreSQL did not stop");
                }
                Err(error)
            }
        }
    }

    /// Writes what is left and ends the private PostgreSQL.
    pub(crate) async fn close(self) -> Result<(), Error> {
        self.store.close().await;
        match self.embedded {
            Some(embedded) => Ok(embedded.stop().await?),
            None => Ok(()),
        }
    }

    /// As [`Database::close`], when there is an error to tell already.
    pub(crate) async fn close_after(self, first: &Error) {
        if let Err(second) = self.close().await {
            tracing::warn!(error = %second, after = %first, "the database was not closed well");
        }
    }
}

/// Whether this is the URL of a PostgreSQL. What is wrong with it is told without it: it may hold a password.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    let scheme = url::Url::parse(url).map_err(|error| error.to_string())?.scheme().to_owned();
    if !matches!(scheme.as_str(), "postgres" | "postgresql") {
        return Err(format!("it begins with {scheme}://, not with postgres://"));
    }
    PgConnectOptions::from_str(url).map(drop).map_err(|error| error.to_string())
}

/// The reason behind a failed opening: the pool only tells that it waited, and the driver adds lines of PostgreSQL's
/// own source.
async fn explain(error: StoreError, url: &SecretString) -> Error {
    let reason = match &error {
        StoreError::Unavailable(_) => ask(url).await,
        _ => None,
    };
    match (reason, error) {
        (Some(sqlx::Error::Database(answer)), _) | (None, StoreError::Database(sqlx::Error::Database(answer)))
            if is_refusal(answer.code().as_deref()) =>
        {
            Error::Refused(answer.message().to_owned())
        }
        (Some(sqlx::Error::Database(answer)), _) => StoreError::Unavailable(answer.message().to_owned()).into(),
        (Some(sqlx::Error::Io(reason)), _) => StoreError::Unavailable(reason.to_string()).into(),
        (Some(reason), _) => StoreError::Unavailable(reason.to_string()).into(),
        (None, error) => error.into(),
    }
}

/// Whether PostgreSQL does not let this user in (28), has no such database (3D) or gives too few rights (42501).
fn is_refusal(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("28") || code.starts_with("3D") || code == "42501")
}

/// Why one connection cannot be made; `None` when it can, or nobody answers.
async fn ask(url: &SecretString) -> Option<sqlx::Error> {
    let options = PgConnectOptions::from_str(url.expose_secret()).ok()?;
    timeout(ASK_WITHIN, PgConnection::connect_with(&options)).await.ok()?.err()
}

fn store_options(settings: &Settings, url: SecretString, key: MasterKey) -> StoreOptions {
    StoreOptions {
        max_connections: settings.limits.database_connections.get(),
        redactor: Some(Redactor::new(settings.redact.iter().cloned())),
        ..StoreOptions::new(url, key)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    fn home() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        dir
    }

    async fn fault(settings: &Settings) -> Error {
        match Database::open(settings, Some(MasterKey::generate().unwrap())).await {
            Err(error) => error,
            Ok(_) => panic!("opened"),
        }
    }

    fn with_url(url: &str) -> Settings {
        Settings { database_url: Some(SecretString::from(url.to_owned())), ..Settings::default() }
    }

    fn with_dir(dir: &Path) -> Settings {
        Settings { data_dir: dir.to_owned(), ..Settings::default() }
    }

    #[tokio::test]
    async fn urls_that_are_none_of_postgresql_are_told_at_once() {
        for (url, word) in [
            ("mysql://u:hush@h/d", "begins with mysql://, not with postgres://"),
            ("junk", "relative URL"),
            ("postgres://u:hush@h:port/d", "port"),
        ] {
            let error = fault(&with_url(url)).await;
            let shown = error.to_string();
            assert!(shown.contains(word) && shown.contains(LOOKS_LIKE) && !shown.contains("hush"), "{shown}");
            assert_eq!(error.exit_code(), 2);
        }
        for url in [LOOKS_LIKE, "postgresql:///d?host=%2Ftmp", "postgres://%2Ftmp/d"] {
            check_url(url).unwrap();
        }
    }

    #[tokio::test]
    async fn why_nobody_answers_is_told() {
        // A port below 1024 that nothing uses: one that was free a moment ago may be somebody's by now.
        let url = "postgres://u:hush@127.0.0.1:1/d".to_owned();
        let waited = StoreError::Unavailable("pool timed out while waiting for an open connection".to_owned());
        let error = explain(waited, &SecretString::from(url)).await;
        let shown = error.to_string();
        assert!(shown.contains("refused") && !shown.contains("pool") && !shown.contains("hush"), "{shown}");
        assert_eq!(error.exit_code(), 1);
    }

    #[tokio::test]
    async fn what_was_given_wrong_ends_with_code_2() {
        let dir = home();
        let database = Database::open(&with_dir(dir.path()), Some(MasterKey::generate().unwrap())).await.unwrap();
        let url = database.embedded.as_ref().unwrap().url();
        let absent = fault(&with_url(&url.expose_secret().replace("/daybook?", "/absent?"))).await;
        assert_eq!(
            absent.to_string(),
            "the database refused: database \"absent\" does not exist; \
             check that DATABASE_URL names the right user, password and database"
        );
        database.close().await.unwrap();

        let other_key = fault(&with_dir(dir.path())).await;
        assert!(matches!(&other_key, Error::Store(StoreError::WrongMasterKey)), "{other_key}");
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let no_dir = fault(&with_dir(&file)).await;
        let bin_dir = Some(dir.path().to_owned());
        let no_programs = fault(&Settings { postgres_bin_dir: bin_dir, ..with_dir(dir.path()) }).await;
        for error in [absent, other_key, no_dir, no_programs] {
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }
}
