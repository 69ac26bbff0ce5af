//! Finds PostgreSQL's programs: on PATH, by pg_config, and where the systems' packages put them.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use tokio::process::Command;

use super::EmbeddedError;

/// Oldest major version the embedded server runs with.
pub(super) const OLDEST_MAJOR: u32 = 14;

/// One installation.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
    pub(super) major: u32,
}

impl Binaries {
    pub(super) fn initdb(&self) -> PathBuf {
        self.dir.join("initdb")
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    /// Reads an installation; `None` where a program is missing or too old.
    async fn at(dir: PathBuf) -> Option<Self> {
        if !dir.join("initdb").is_file() {
            return None;
        }
        let said = first_line(Command::new(dir.join("postgres")).arg("--version")).await?;
        let major = major_of(&said)?;
        (major >= OLDEST_MAJOR).then_some(Self { dir, major })
    }
}

/// Where to look.
pub(super) struct Search {
    /// Only here, when given.
    pub(super) bin_dir: Option<PathBuf>,
    /// The value of PATH.
    pub(super) path: std::ffi::OsString,
    /// Patterns of the usual places, see [`USUAL_PLACES`].
    pub(super) places: &'static [(&'static str, &'static str)],
}

impl Search {
    pub(super) fn usual(bin_dir: Option<PathBuf>) -> Self {
        Self { bin_dir, path: env::var_os("PATH").unwrap_or_default(), places: USUAL_PLACES }
    }

    /// The first installation that can serve data written by `wanted` (any, when the data is new).
    pub(super) async fn find(&self, data: &Path, wanted: Option<u32>) -> Result<Binaries, EmbeddedError> {
        let mut found = Vec::new();
        for dir in self.candidates().await {
            let Some(binaries) = Binaries::at(dir).await else { continue };
            if wanted.is_none_or(|major| major == binaries.major) {
                return Ok(binaries);
            }
            found.push(binaries.major.to_string());
        }
        match (wanted, &self.bin_dir) {
            (Some(wanted), _) if !found.is_empty() => {
                let found = found.join(" and ");
                Err(EmbeddedError::WrongVersion { data: data.to_path_buf(), wanted, found })
            }
            (_, Some(dir)) => Err(EmbeddedError::BadBinDir { dir: dir.clone() }),
            _ => Err(EmbeddedError::NoBinaries { remedy: self.remedy() }),
        }
    }

    async fn candidates(&self) -> Vec<PathBuf> {
        if let Some(dir) = &self.bin_dir {
            return vec![dir.clone()];
        }
        let mut dirs = Vec::new();
        for dir in env::split_paths(&self.path) {
            dirs.push(dir.clone());
            // A link on PATH often points into the directory that also holds initdb.
            if let Some(parent) = fs::canonicalize(dir.join("postgres")).ok().as_deref().and_then(Path::parent) {
                dirs.push(parent.to_path_buf());
            }
        }
        if let Some(pg_config) = self.on_path("pg_config")
            && let Some(dir) = first_line(Command::new(pg_config).arg("--bindir")).await
        {
            dirs.push(PathBuf::from(dir));
        }
        let mut usual: Vec<_> = self.places.iter().flat_map(|(parent, rest)| expand(Path::new(parent), rest)).collect();
        usual.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        dirs.extend(usual.into_iter().map(|(_, dir)| dir));
        let mut seen = std::collections::HashSet::new();
        dirs.retain(|dir| seen.insert(dir.clone()));
        dirs
    }

    fn on_path(&self, program: &str) -> Option<PathBuf> {
        env::split_paths(&self.path).map(|dir| dir.join(program)).find(|file| file.is_file())
    }

    /// What to install on this machine, by its package manager.
    fn remedy(&self) -> String {
        const INSTALLS: &[(&str, &str)] = &[
            ("apt-get", "apt-get install postgresql"),
            ("dnf", "dnf install postgresql-server"),
            ("yum", "yum install postgresql-server"),
            ("zypper", "zypper install postgresql-server"),
            ("apk", "apk add postgresql"),
            ("pacman", "pacman -S postgresql"),
            ("brew", "brew install postgresql@17"),
        ];
        match INSTALLS.iter().find(|(manager, _)| self.on_path(manager).is_some()) {
            Some((_, install)) => format!("install the package with `{install}`"),
            None => "install the package postgresql (on some systems postgresql-server)".to_owned(),
        }
    }
}

/// (parent directory, the rest): the first name of the rest may end in `*` for a version.
const USUAL_PLACES: &[(&str, &str)] = &[
    ("/usr/lib/postgresql", "*/bin"),
    ("/usr", "pgsql-*/bin"),
    ("/usr/lib", "postgresql*/bin"),
    ("/usr/libexec", "postgresql*"),
    ("/usr/local", "pgsql*/bin"),
    ("/usr/local/opt", "postgresql*/bin"),
    ("/opt/homebrew/opt", "postgresql*/bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql*/bin"),
    ("/opt/local/lib", "postgresql*/bin"),
    ("/opt", "postgresql*/bin"),
    ("/Library/PostgreSQL", "*/bin"),
    ("/Applications/Postgres.app/Contents/Versions", "*/bin"),
];

/// The directories a pattern stands for, each with the version in its name (0 where there is none).
fn expand(parent: &Path, rest: &str) -> Vec<(u32, PathBuf)> {
    let (name, below) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = name.trim_end_matches('*');
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?;
            let dir = entry.path().join(below);
            dir.is_dir().then(|| (major_of(version).unwrap_or(0), dir))
        })
        .collect()
}

/// The first number in a text: 15 in "postgres (PostgreSQL) 15.18 (Debian ...)".
fn major_of(text: &str) -> Option<u32> {
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

async fn first_line(command: &mut Command) -> Option<String> {
    let output = command.kill_on_drop(true).output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
}
