//! AES-256-GCM with a random nonce in front, and the master key that everything hangs from.

use std::fmt;
use std::io::Write;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretBox, SecretString};

use crate::error::StoreError;

/// Bytes of a key.
pub(crate) const KEY_LEN: usize = 32;

/// A key's bytes, wiped when dropped.
pub(crate) type KeyBytes = SecretBox<[u8; KEY_LEN]>;

/// The key that protects the users' keys, and by them everything personal.
pub struct MasterKey(KeyBytes);

impl MasterKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`StoreError::Crypto`] when the system has no randomness.
    pub fn generate() -> Result<Self, StoreError> {
        Ok(Self(random_key()?))
    }

    /// Reads a key as [`MasterKey::to_base64`] writes it.
    ///
    /// # Errors
    /// [`StoreError::BadMasterKey`] when it is not base64 of 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, StoreError> {
        let bad = |why: String| StoreError::BadMasterKey(format!("{why}; it must be base64 of {KEY_LEN} bytes"));
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|error| bad(error.to_string()))?);
        key_from(&bytes).map(Self).ok_or_else(|| bad(format!("it has {} bytes", bytes.len())))
    }

    /// The key as base64, to be kept where secrets are kept.
    pub fn to_base64(&self) -> SecretString {
        STANDARD.encode(self.0.expose_secret()).into()
    }

    /// Writes the key to a new file that only its owner may read. An existing file is left alone.
    ///
    /// # Errors
    /// [`StoreError::KeyFile`] when the file exists or cannot be written.
    pub fn to_file(&self, path: &Path) -> Result<(), StoreError> {
        self.write_new(path).map_err(|source| key_file(path, source))
    }

    /// Reads the key from `path`, or makes one there. Of several processes that do so at once, one makes it.
    ///
    /// # Errors
    /// [`StoreError::KeyFile`] when the file cannot be read or written, [`StoreError::BadMasterKey`] when it holds
    /// something else.
    pub fn load_or_create(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            let key = Self::generate()?;
            match key.write_new(path) {
                Ok(()) => return Ok(key),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(key_file(path, source)),
            }
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|source| key_file(path, source))?);
        Self::from_base64(&text)
    }

    fn write_new(&self, path: &Path) -> std::io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Made beside and then linked in, so that nobody reads half a key. Such files are 0600 from the start.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(file, "{}", self.to_base64().expose_secret())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path).map_err(|error| error.error)?;
        std::fs::File::open(folder)?.sync_all()
    }

    pub(crate) fn sealer(&self) -> Result<Sealer, StoreError> {
        Sealer::new(&self.0)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey([redacted])")
    }
}

fn key_file(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::KeyFile { path: path.display().to_string(), source }
}

pub(crate) fn key_from(bytes: &[u8]) -> Option<KeyBytes> {
    let bytes: &[u8; KEY_LEN] = bytes.try_into().ok()?;
    Some(SecretBox::init_with_mut(|key: &mut [u8; KEY_LEN]| key.copy_from_slice(bytes)))
}

pub(crate) fn random_key() -> Result<KeyBytes, StoreError> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| StoreError::Crypto("drawing a key"))?;
    key_from(&*bytes).ok_or(StoreError::Crypto("drawing a key"))
}

/// A key ready for use; the library wipes its copy when dropped.
pub(crate) struct Sealer(LessSafeKey);

impl Sealer {
    pub(crate) fn new(key: &KeyBytes) -> Result<Self, StoreError> {
        let key = UnboundKey::new(&AES_256_GCM, key.expose_secret()).map_err(|_| StoreError::Crypto("a key"))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Encrypts `plain` for the place `aad` names.
    pub(crate) fn seal(&self, aad: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let failed = |_| StoreError::Crypto("encrypting");
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(failed)?;
        let mut out = Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let (_, body) = out.split_at_mut(NONCE_LEN);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad.as_bytes()), body).map_err(failed)?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Decrypts what [`Sealer::seal`] made for the same place; `None` when it did not.
    pub(crate) fn open(&self, aad: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let len = self.0.open_in_place(nonce, Aad::from(aad.as_bytes()), &mut body).ok()?.len();
        body.truncate(len);
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn sealed_bytes_open_only_unchanged_and_in_their_place() {
        let sealer = MasterKey::generate().unwrap().sealer().unwrap();
        let sealed = sealer.seal("here", b"secret").unwrap();
        assert_eq!(sealer.open("here", &sealed).unwrap(), b"secret");
        assert!(sealer.open("there", &sealed).is_none());
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealer.open("here", &changed).is_none(), "byte {at}");
        }
        assert!(sealer.open("here", &sealed[..5]).is_none());
    }

    #[test]
    fn a_key_file_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        let first = MasterKey::load_or_create(&path).unwrap();
        let second = MasterKey::load_or_create(&path).unwrap();
        assert_eq!(first.to_base64().expose_secret(), second.to_base64().expose_secret());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(first.to_file(&path), Err(StoreError::KeyFile { .. })));
        assert!(matches!(MasterKey::from_base64("c2hvcnQ="), Err(StoreError::BadMasterKey(_))));
    }
}
