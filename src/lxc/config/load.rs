//! Reading the files: the first one, and what it includes, with limits that no honest configuration
//! reaches.

use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Config;
use super::error::{ConfigError, Position};
use super::parse::{self, Item};
use crate::sys::path_trust::{self, Guest, Source};

/// How deep includes may nest. LXC's own templates need three.
const DEPTH_MAX: usize = 16;

/// How many bytes all files may have together.
pub(super) const BYTES_MAX: u64 = 4 << 20;

/// How many files may be read in all: a chain of double includes grows without many bytes.
const FILES_MAX: usize = 1024;

/// Reads files into a configuration.
pub(super) struct Loader {
    config: Config,
    /// The files being read now, by device and inode, to see a cycle whatever the names.
    open: Vec<(u64, u64)>,
    files: usize,
    bytes: u64,
}

impl Loader {
    /// Reads a file and all that it includes.
    pub(super) fn load(path: &Path) -> Result<Config, ConfigError> {
        let mut loader =
            Loader { config: Config::empty(path), open: Vec::new(), files: 0, bytes: 0 };
        loader.file(path, None)?;
        Ok(loader.config)
    }

    /// As [`Loader::load`], with the text of the first file at hand.
    pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Config, ConfigError> {
        let mut loader =
            Loader { config: Config::empty(path), open: Vec::new(), files: 1, bytes: 0 };
        loader.count(path, None, text)?;
        loader.text(path, text)?;
        Ok(loader.config)
    }

    fn file(&mut self, path: &Path, from: Option<&Item>) -> Result<(), ConfigError> {
        let at = from.map(|i| &i.at);
        let Read { text, id, source } =
            read(path).map_err(|source| read_error(path, at, source))?;
        self.config.sources.push(source);
        if let Some(item) = from {
            if self.open.contains(&id) {
                return Err(item.wrong(format!("{} includes itself", path.display())).into());
            }
            if self.open.len() >= DEPTH_MAX {
                return Err(item
                    .wrong(format!("includes nest deeper than {DEPTH_MAX} files"))
                    .into());
            }
            if self.files >= FILES_MAX {
                return Err(item.wrong(format!("more than {FILES_MAX} files are included")).into());
            }
        }
        self.count(path, at, &text)?;
        self.files += 1;
        self.open.push(id);
        self.text(path, &text)?;
        self.open.pop();
        Ok(())
    }

    fn count(
        &mut self,
        path: &Path,
        at: Option<&Position>,
        text: &[u8],
    ) -> Result<(), ConfigError> {
        self.bytes += text.len() as u64;
        if self.bytes > BYTES_MAX {
            return Err(ConfigError::TooLarge {
                path: path.to_owned(),
                from: at.cloned(),
                limit: BYTES_MAX,
            });
        }
        Ok(())
    }

    fn text(&mut self, path: &Path, text: &[u8]) -> Result<(), ConfigError> {
        let file: Arc<Path> = Arc::from(path);
        for item in parse::items(&file, text) {
            let item = item?;
            if item.key != "lxc.include" {
                self.config.set(item)?;
            } else if !item.value.is_empty() {
                self.include(&item)?;
            }
        }
        Ok(())
    }

    /// A file, or the files `*.conf` of a directory.
    fn include(&mut self, item: &Item) -> Result<(), ConfigError> {
        let path = PathBuf::from(&item.value);
        if !item.value.as_bytes().ends_with(b"/") && !path.is_dir() {
            return self.file(&path, Some(item));
        }
        let error = |source| read_error(&path, Some(&item.at), source);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            // liblxc's own configuration names directories that need not be there.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(error(e)),
        };
        // Not sorted: liblxc takes them as readdir gives them, and so must we to end with the same
        // values.
        for entry in entries {
            let name = entry.map_err(error)?.file_name();
            let file = path.join(&name);
            // A directory among them is passed over: liblxc complains about it and goes on.
            if name.len() > ".conf".len() && name.as_bytes().ends_with(b".conf") && !file.is_dir() {
                self.file(&file, Some(item))?;
            }
        }
        Ok(())
    }
}

fn read_error(path: &Path, from: Option<&Position>, source: io::Error) -> ConfigError {
    ConfigError::Read { path: path.to_owned(), from: from.cloned(), source }
}

/// A file of limited size that nobody but root, or the container's root, can have put there; named
/// in the error.
pub(super) fn read_file(
    path: &Path,
    from: Option<&Position>,
    guest: Option<Guest>,
) -> Result<Vec<u8>, ConfigError> {
    let Read { text, source, .. } = read(path).map_err(|source| read_error(path, from, source))?;
    source.judge(guest).map_err(|untrusted| read_error(path, from, io::Error::other(untrusted)))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
            from: from.cloned(),
            limit: BYTES_MAX,
        });
    }
    Ok(text)
}

/// What was read.
struct Read {
    /// A file's bytes, at most one more than [`BYTES_MAX`].
    text: Vec<u8>,
    /// Its device and inode.
    id: (u64, u64),
    /// Who could have written it.
    source: Source,
}

fn read(path: &Path) -> io::Result<Read> {
    let (file, source) = path_trust::open(path)?;
    let meta = file.metadata()?;
    let mut text = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut text)?;
    Ok(Read { text, id: (meta.dev(), meta.ino()), source })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn includes_files_and_directories_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("d")).unwrap();
        fs::write(path("d/a.conf"), "lxc.uts.name = from-dir\n").unwrap();
        fs::create_dir(path("d/sub.conf")).unwrap();
        fs::write(path("d/b.txt"), "lxc.uts.name = never\n").unwrap();
        fs::write(path("d/.conf"), "lxc.uts.name = never\n").unwrap();
        fs::write(path("one"), "lxc.uts.name = from-one\nlxc.hook.start = /one\n").unwrap();
        let main = format!(
            "lxc.hook.start = /zero\nlxc.include = {0}/one\nlxc.hook.start = /two\nlxc.include = \
             {0}/d\nlxc.include = {0}/none/\nlxc.include =\n",
            dir.path().display()
        );
        fs::write(path("config"), main).unwrap();
        let config = Loader::load(&path("config")).unwrap();
        assert_eq!(config.uts_name(), Some("from-dir"));
        assert_eq!(config.hooks(super::super::HookKind::Start), ["/zero", "/one", "/two"]);
    }

    #[test]
    fn refuses_cycles_depth_and_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a"), format!("\nlxc.include = {}\n", path("b").display())).unwrap();
        fs::write(path("b"), format!("lxc.include = {}\n", path("a").display())).unwrap();
        let e = Loader::load(&path("a")).unwrap_err();
        let place = e.parse_error().unwrap();
        assert_eq!((place.file.clone(), place.line, place.column), (path("b"), 1, 15), "{e}");

        for n in 0..20 {
            fs::write(
                path(&format!("n{n}")),
                format!("lxc.include = {}\n", path(&format!("n{}", n + 1)).display()),
            )
            .unwrap();
        }
        assert!(Loader::load(&path("n0")).unwrap_err().to_string().contains("deeper"));

        fs::write(path("big"), vec![b'\n'; BYTES_MAX as usize + 1]).unwrap();
        assert!(matches!(Loader::load(&path("big")), Err(ConfigError::TooLarge { .. })));

        // Each file includes the next one twice: 2^30 readings of almost nothing.
        fs::write(path("d12"), "").unwrap();
        for n in 0..12 {
            let next = path(&format!("d{}", n + 1));
            fs::write(
                path(&format!("d{n}")),
                format!("lxc.include = {0}\nlxc.include = {0}\n", next.display()),
            )
            .unwrap();
        }
        assert!(Loader::load(&path("d0")).unwrap_err().to_string().contains("more than"));
    }

    #[test]
    fn names_the_file_that_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("config");
        let e = Loader::load(&main).unwrap_err();
        assert_eq!(e.to_string(), format!("read {}", main.display()));
        fs::write(&main, "\n  lxc.include = /nonexistent/x\n").unwrap();
        let e = Loader::load(&main).unwrap_err();
        assert_eq!(
            e.to_string(),
            format!("read /nonexistent/x (included from {}:2:3)", main.display())
        );
    }
}
