//! The images of a checkpoint as CRIU is to see them: some of them differ from those in its
//! directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Error, bytes_of};

/// Images, and changes to them that are nowhere on the disk.
#[derive(Clone, Debug)]
pub struct Shown {
    dir: PathBuf,
    changed: BTreeMap<String, Vec<u8>>,
}

impl Shown {
    /// The images of a directory as they are.
    pub fn of(dir: &Path) -> Shown {
        Shown { dir: dir.to_owned(), changed: BTreeMap::new() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// An image.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, Error> {
        match self.changed.get(name) {
            Some(bytes) => Ok(bytes.clone()),
            None => bytes_of(&self.dir.join(name)),
        }
    }

    /// Shows other images in the place of those with these names.
    pub fn put(&mut self, images: impl IntoIterator<Item = (String, Vec<u8>)>) {
        self.changed.extend(images);
    }

    /// Shows an image as `change` makes it of what is shown now; it is given the path, too, for its
    /// errors.
    pub fn change(
        &mut self,
        name: &str,
        change: impl FnOnce(&Path, &[u8]) -> Result<Vec<u8>, Error>,
    ) -> Result<(), Error> {
        let bytes = self.bytes(name)?;
        let image = change(&self.dir.join(name), &bytes)?;
        if image != bytes {
            self.changed.insert(name.to_owned(), image);
        }
        Ok(())
    }

    /// Those that differ, by name.
    pub fn into_changed(self) -> BTreeMap<String, Vec<u8>> {
        self.changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_change_builds_on_the_other_and_the_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.img"), "a").unwrap();
        let mut shown = Shown::of(dir.path());
        shown.change("a.img", |_, bytes| Ok(bytes.to_vec())).unwrap();
        assert_eq!(shown.clone().into_changed(), BTreeMap::new());
        for letter in *b"bc" {
            shown.change("a.img", |_, bytes| Ok([bytes, &[letter]].concat())).unwrap();
        }
        assert!(shown.change("b.img", |_, _| Ok(Vec::new())).unwrap_err().is_not_found());
        assert_eq!(std::fs::read(dir.path().join("a.img")).unwrap(), b"a");
        assert_eq!(shown.bytes("a.img").unwrap(), b"abc");
        shown.put([("b.img".to_owned(), b"new".to_vec())]);
        assert_eq!(shown.into_changed().into_values().collect::<Vec<_>>(), [b"abc", b"new"]);
    }
}
