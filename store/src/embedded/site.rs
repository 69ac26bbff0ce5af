//! Where the embedded server lives: its lock, its user, its data and its socket directory.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::{Uid, User, geteuid},
};
use tokio::process::Command;

use super::EmbeddedError;

/// A Unix socket's path has at most 107 bytes; this is what the name of PostgreSQL's takes, with its separator.
const SOCKET_NAME_BYTES: usize = "/.s.PGSQL.5432".len();
const SOCKET_PATH_BYTES: usize = 103; // 107 on Linux, 103 on macOS and the BSDs.
/// The server's log is put aside at a start when it has grown beyond this.
const LOG_BYTES: u64 = 10 * 1024 * 1024;
/// How the names of data begin that is not complete yet.
const UNFINISHED: &str = "postgres.new";
/// Where root keeps data that the server's user could not reach in its own place.
const ELSEWHERE: &str = "/var/lib/daybook";

/// The paths of one embedded server and the user that runs it.
#[derive(Debug, Clone)]
pub(super) struct Site {
    /// The `.daybook` directory, canonical.
    pub(super) dir: PathBuf,
    /// PostgreSQL's data directory.
    pub(super) data: PathBuf,
    /// Holds only the socket; private to the server's user.
    pub(super) socket_dir: PathBuf,
    /// Who may connect as whom; kept outside the data, so that root writes nothing into another user's directory.
    pub(super) hba: PathBuf,
    pub(super) ident: PathBuf,
    pub(super) log: PathBuf,
    run_as: Option<User>,
}

/// The lock of a directory; held as long as this lives, and let go by the system when the process dies.
pub(super) type Lock = Flock<File>;

impl Site {
    /// Creates the directory, takes its lock and settles where everything is.
    pub(super) fn prepare(dir: &Path) -> Result<(Self, Lock), EmbeddedError> {
        let dir = create_home(dir)?;
        let lock = take_lock(&dir)?;
        let base = choose_base(&dir)?;
        let data = base.join("postgres");
        let run_as = server_user(&data)?;
        if let Some(user) = &run_as
            && let Some(at) = closed_to(user, &base)
        {
            return Err(EmbeddedError::Unreachable { user: user.name.clone(), at });
        }
        let socket_dir = socket_dir(&base, run_as.as_ref())?;
        let (hba, ident) = (base.join("postgres.hba"), base.join("postgres.ident"));
        let site = Self { log: dir.join("postgres.log"), dir, data, socket_dir, hba, ident, run_as };
        site.write_access_rules()?;
        site.put_log_aside()?;
        Ok((site, lock))
    }

    /// The major version that wrote the data; `None` where there is none yet.
    pub(super) fn data_version(&self) -> Option<u32> {
        fs::read_to_string(self.data.join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    /// A command of PostgreSQL: as the right user, in a group of its own so that the terminal's Ctrl-C does not reach it,
    /// and with almost no environment, because ours holds secrets and PG* settings meant for others.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C").current_dir("/").process_group(0).stdin(std::process::Stdio::null());
        for name in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Some(user) = &self.run_as {
            // The standard library also drops root's supplementary groups here.
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    /// A new private directory that belongs to the server's user.
    pub(super) fn private_dir(&self, path: &Path) -> Result<(), EmbeddedError> {
        private_dir(path, self.run_as.as_ref())
    }

    /// Where the data is made before it gets its name; another one each time, so that what a killed start left running
    /// cannot meet it.
    pub(super) fn fresh(&self) -> PathBuf {
        self.data.with_file_name(format!("{UNFINISHED}-{}", uuid::Uuid::now_v7()))
    }

    /// What starts that were killed left of their [`Self::fresh`].
    pub(super) fn unfinished(&self) -> Vec<PathBuf> {
        let entries = self.data.parent().and_then(|base| fs::read_dir(base).ok()).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED));
        named.map(|entry| entry.path()).collect()
    }

    /// Opens the server's log for appending.
    pub(super) fn open_log(&self) -> Result<File, EmbeddedError> {
        let mut options = OpenOptions::new();
        options.create(true).append(true).read(true).mode(0o600);
        options.open(&self.log).map_err(EmbeddedError::io("write", &self.log))
    }

    /// In bytes; 0 where there is no log.
    pub(super) fn log_length(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |meta| meta.len())
    }

    fn put_log_aside(&self) -> Result<(), EmbeddedError> {
        if fs::metadata(&self.log).is_ok_and(|meta| meta.len() > LOG_BYTES) {
            let old = self.log.with_extension("log.1");
            fs::rename(&self.log, &old).map_err(EmbeddedError::io("rename", &self.log))?;
        }
        Ok(())
    }

    /// Only the user Daybook runs as may connect, and only as `daybook`: the kernel vouches for the caller (`peer`), so
    /// there is no password to keep, to leak or to lose, and a wrong mode on the socket directory opens nothing.
    fn write_access_rules(&self) -> Result<(), EmbeddedError> {
        let me = geteuid();
        let name = User::from_uid(me).ok().flatten().map_or_else(|| me.to_string(), |user| user.name);
        replace(&self.hba, "local all all peer map=daybook\n")?;
        replace(&self.ident, &format!("daybook \"{name}\" daybook\n"))
    }
}

/// Writes a small file whole, readable by the server's user.
fn replace(path: &Path, text: &str) -> Result<(), EmbeddedError> {
    // The whole name stays in front: beside `postgres.hba` and `postgres.ident` there is the unfinished `postgres.new`.
    let mut new = path.as_os_str().to_owned();
    new.push(".tmp");
    let new = PathBuf::from(new);
    let write = || fs::write(&new, text).and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(0o644)));
    write().map_err(EmbeddedError::io("write", &new))?;
    fs::rename(&new, path).map_err(EmbeddedError::io("replace", path))
}

fn create_home(dir: &Path) -> Result<PathBuf, EmbeddedError> {
    let is_empty = fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
    fs::create_dir_all(dir).map_err(|source| EmbeddedError::BadDir { dir: dir.to_path_buf(), source })?;
    if is_empty {
        // Others may not look in; but root's server runs as somebody else, who must be able to pass through.
        let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
        fs::set_permissions(dir, fs::Permissions::from_mode(mode))
            .map_err(EmbeddedError::io("set the mode of", dir))?;
    }
    fs::canonicalize(dir).map_err(EmbeddedError::io("find", dir))
}

fn take_lock(dir: &Path) -> Result<Lock, EmbeddedError> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let file = options.open(&path).map_err(|source| EmbeddedError::BadDir { dir: dir.to_path_buf(), source })?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let pid = std::process::id().to_string();
            let mut write = || {
                lock.set_len(0)?;
                lock.rewind()?;
                lock.write_all(pid.as_bytes())
            };
            write().map_err(EmbeddedError::io("write", &path))?;
            Ok(lock)
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let known = file.read_to_string(&mut pid).is_ok() && pid.parse::<u32>().is_ok();
            let who = if known { format!("pid {pid}") } else { "pid unknown".to_owned() };
            Err(EmbeddedError::InUse { dir: dir.to_path_buf(), who })
        }
        Err((_, errno)) => Err(EmbeddedError::io("lock", &path)(errno.into())),
    }
}

/// The directory that holds data, socket and access rules: `dir` itself, unless the server's user cannot get there.
fn choose_base(dir: &Path) -> Result<PathBuf, EmbeddedError> {
    let note = dir.join("postgres.location");
    if let Ok(text) = fs::read_to_string(&note) {
        let at = PathBuf::from(text.trim());
        return if at.join("postgres/PG_VERSION").is_file() {
            Ok(at)
        } else {
            Err(EmbeddedError::Gone { dir: dir.to_path_buf(), at, note })
        };
    }
    let has_data = dir.join("postgres/PG_VERSION").is_file();
    let Some(user) = server_user(&dir.join("postgres"))?.filter(|_| !has_data) else { return Ok(dir.to_path_buf()) };
    let Some(closed) = closed_to(&user, dir) else { return Ok(dir.to_path_buf()) };
    let base = Path::new(ELSEWHERE).join(uuid::Uuid::now_v7().to_string());
    tracing::warn!(
        closed = %closed.display(), user = user.name, instead = %base.display(),
        "the user that runs PostgreSQL may not enter a directory on the way; the database is kept elsewhere"
    );
    let create = |path: &Path| DirBuilder::new().recursive(true).mode(0o711).create(path);
    create(Path::new(ELSEWHERE)).and_then(|()| create(&base)).map_err(EmbeddedError::io("create", &base))?;
    Ok(base)
}

/// Notes where the data went, once it is there; nothing when it is in its own place.
pub(super) fn note_base(site: &Site) -> Result<(), EmbeddedError> {
    match site.data.parent() {
        Some(base) if base != site.dir => replace(&site.dir.join("postgres.location"), &base.display().to_string()),
        _ => Ok(()),
    }
}

/// PostgreSQL refuses to run as root: the owner of existing data, else `postgres`, else `nobody`. `None` when not root.
fn server_user(data: &Path) -> Result<Option<User>, EmbeddedError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let owner = fs::metadata(data).ok().map(|meta| Uid::from_raw(meta.uid())).filter(|uid| !uid.is_root());
    if let Some(owner) = owner.and_then(|uid| User::from_uid(uid).ok().flatten()) {
        return Ok(Some(owner));
    }
    let named = ["postgres", "_postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok().flatten());
    named.map(Some).ok_or(EmbeddedError::NoUser)
}

/// The first directory on the way to `path`, itself included, that `user` may not pass through.
fn closed_to(user: &User, path: &Path) -> Option<PathBuf> {
    let mut way: Vec<_> = path.ancestors().collect();
    way.reverse();
    let closed = way.into_iter().find(|dir| {
        fs::metadata(dir).is_ok_and(|meta| {
            let bit = match meta {
                ref m if m.uid() == user.uid.as_raw() => 0o100,
                ref m if m.gid() == user.gid.as_raw() => 0o010,
                _ => 0o001,
            };
            meta.mode() & bit == 0
        })
    });
    closed.map(Path::to_path_buf)
}

/// A private directory whose name leaves room for the socket's: beside the data, else in the temporary directory.
fn socket_dir(base: &Path, user: Option<&User>) -> Result<PathBuf, EmbeddedError> {
    let beside = base.join("socket");
    let fits = |dir: &Path| dir.as_os_str().len() + SOCKET_NAME_BYTES <= SOCKET_PATH_BYTES && dir.to_str().is_some();
    let dir = if fits(&beside) { beside } else { Path::new("/tmp").join(format!("daybook-{}", short_hash(base))) };
    match (fs::symlink_metadata(&dir), user) {
        (Err(_), _) => private_dir(&dir, user)?,
        // Ours from a start that ended before it was handed over.
        (Ok(meta), Some(user)) if meta.is_dir() && meta.uid() == 0 => hand_over(&dir, user)?,
        (Ok(meta), _) => {
            // Anyone can create a name under /tmp: whose directory it is decides whether to trust what listens there.
            let owner = user.map_or_else(geteuid, |user| user.uid).as_raw();
            let why = match meta {
                ref m if !m.is_dir() => Some("it is not a directory"),
                ref m if m.uid() != owner => Some("it belongs to another user"),
                ref m if m.mode() & 0o077 != 0 => Some("others may enter it"),
                _ => None,
            };
            if let Some(why) = why {
                return Err(EmbeddedError::SocketDir { dir, why });
            }
        }
    }
    Ok(dir)
}

/// The same for the same path at every start.
fn short_hash(path: &Path) -> String {
    hex::encode(&digest(&SHA256, path.as_os_str().as_bytes()).as_ref()[..8])
}

fn private_dir(path: &Path, user: Option<&User>) -> Result<(), EmbeddedError> {
    DirBuilder::new().mode(0o700).create(path).map_err(EmbeddedError::io("create", path))?;
    user.map_or(Ok(()), |user| hand_over(path, user))
}

fn hand_over(path: &Path, user: &User) -> Result<(), EmbeddedError> {
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(EmbeddedError::io("set the owner of", path))
}
