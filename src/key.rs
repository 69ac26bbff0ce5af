//! The master key: from the configuration, or from a file beside the embedded data.

use daybook_store::MasterKey;

use crate::config::{MASTER_KEY, Settings};
use crate::error::Error;

/// The file, in the data directory.
pub(crate) const FILE: &str = "master.key";

/// The key of this server. Only for the embedded database is one made: a database of somebody's own may have other
/// nodes, which need the same key, and outlives this machine's files.
///
/// # Errors
/// [`Error::NoMasterKey`] when there is none, [`Error::Store`] when it cannot be read or is none.
pub(crate) fn find(settings: &Settings, get: impl Fn(&str) -> Option<String>) -> Result<MasterKey, Error> {
    if let Some(key) = given(get)? {
        return Ok(key);
    }
    let path = settings.data_dir.join(FILE);
    if settings.database_url.is_some() && !path.exists() {
        return Err(Error::NoMasterKey);
    }
    Ok(MasterKey::load_or_create(&path)?)
}

/// The key that the environment holds; needs nothing else.
pub(crate) fn given(get: impl Fn(&str) -> Option<String>) -> Result<Option<MasterKey>, Error> {
    let text = get(MASTER_KEY).filter(|text| !text.trim().is_empty());
    Ok(text.map(|text| MasterKey::from_base64(text.trim())).transpose()?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::{ExposeSecret as _, SecretString};

    use super::*;

    fn settings(dir: &std::path::Path, url: Option<&str>) -> Settings {
        Settings { data_dir: dir.to_owned(), database_url: url.map(SecretString::from), ..Settings::default() }
    }

    #[test]
    fn one_is_made_beside_the_embedded_data_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = find(&settings(dir.path(), None), |_| None).unwrap();
        let again = find(&settings(dir.path(), None), |_| None).unwrap();
        assert_eq!(first.to_base64().expose_secret(), again.to_base64().expose_secret());
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let url = Some("postgres://h/d");
        assert!(find(&settings(dir.path(), url), |_| None).is_ok(), "a key that is there is used");
    }

    #[test]
    fn none_is_made_for_a_database_of_somebodys_own() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path(), Some("postgres://h/d"));
        let Err(error) = find(&settings, |_| None) else { panic!("made one") };
        assert!(error.to_string().contains("openssl rand -base64 32"), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert!(!dir.path().join(FILE).exists());
        let key = MasterKey::generate().unwrap().to_base64();
        let given = |name: &str| (name == MASTER_KEY).then(|| format!("{}\n", key.expose_secret()));
        let found = find(&settings, given).unwrap();
        assert_eq!(found.to_base64().expose_secret(), key.expose_secret());
        let Err(error) = find(&settings, |_| Some("short".to_owned())) else { panic!("taken") };
        assert_eq!(error.exit_code(), 2, "{error}");
    }
}
