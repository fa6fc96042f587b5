//! The program that a cloud runs: a file of its own in the data directory, named by its content, so
//! that nothing changes under a running fleet, and a build is known by its name.

use std::fs::{self, File};
use std::hash::Hasher as _;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::files;

/// Holds the name of the build that new nodes and managers run.
const SELECTED: &str = "program";
const FOLDER: &str = "bin";

/// One build, installed in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub path: PathBuf,
    /// Twelve hexadecimal digits of a digest of the file.
    pub build: String,
}

impl Program {
    /// Puts a file into the data directory, which changes nothing yet.
    pub(crate) fn install(data: &Path, file: &Path) -> Result<Self> {
        let build = digest(file).with_context(|| format!("cannot read {}", file.display()))?;
        let program = Self::at(data, build);
        let place = |program: &Self| -> io::Result<()> {
            fs::create_dir_all(data.join(FOLDER))?;
            // The same file under another name costs nothing; another disk needs a copy.
            if fs::hard_link(file, &program.path).is_err() {
                let draft = program.path.with_extension("new");
                fs::copy(file, &draft)?;
                fs::set_permissions(&draft, fs::Permissions::from_mode(0o700))?;
                fs::rename(&draft, &program.path)?;
            }
            Ok(())
        };
        if !program.path.exists() {
            place(&program).with_context(|| format!("cannot make {}", program.path.display()))?;
        }
        Ok(program)
    }

    /// This very program.
    pub(crate) fn install_own(data: &Path) -> Result<Self> {
        let own = std::env::current_exe().context("this program cannot find itself")?;
        Self::install(data, &own)
    }

    /// From now on new nodes and managers run this one.
    pub(crate) fn select(&self, data: &Path) -> Result<()> {
        let before = Self::selected(data);
        files::write_private(&data.join(SELECTED), format!("{}\n", self.build).as_bytes())
            .context("cannot write which program runs")?;
        let kept = [Some(self.path.clone()), before.map(|before| before.path)];
        for entry in fs::read_dir(data.join(FOLDER)).into_iter().flatten().flatten() {
            if !kept.contains(&Some(entry.path())) {
                // A process that runs it goes on.
                fs::remove_file(entry.path()).ok();
            }
        }
        Ok(())
    }

    /// What new nodes and managers run; this very program, if nothing was said.
    pub(crate) fn of(data: &Path) -> Result<Self> {
        match Self::selected(data).filter(|program| program.path.exists()) {
            Some(program) => Ok(program),
            None => {
                let own = Self::install_own(data)?;
                own.select(data)?;
                Ok(own)
            }
        }
    }

    fn selected(data: &Path) -> Option<Self> {
        let build = fs::read_to_string(data.join(SELECTED)).ok()?.trim().to_owned();
        build.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| Self::at(data, build))
    }

    fn at(data: &Path, build: String) -> Self {
        Self { path: data.join(FOLDER).join(format!("sipcloud-{build}")), build }
    }
}

/// Tells builds apart; no defence against anybody.
fn digest(file: &Path) -> io::Result<String> {
    let mut file = File::open(file)?;
    let (mut hasher, mut buffer) = (SipHasher13::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => hasher.write(buffer.get(..length).unwrap_or_default()),
        }
    }
    let digest = format!("{:016x}", hasher.finish128().h1);
    Ok(digest.chars().take(12).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_known_by_its_content_and_stays_when_its_source_goes() {
        let data = files::test_directory("program");
        fs::create_dir_all(&data).expect("made");
        let source = data.join("source");
        let mut builds = Vec::new();
        for content in ["one", "two", "three", "one"] {
            fs::write(&source, content).expect("written");
            let program = Program::install(&data, &source).expect("installed");
            program.select(&data).expect("selected");
            // A package manager replaces a file, it does not write into it.
            fs::remove_file(&source).expect("removed");
            assert_eq!(Program::of(&data).expect("there"), program);
            assert_eq!(fs::read_to_string(&program.path).expect("there"), content);
            builds.push(program.build);
        }
        assert_eq!(builds[0], builds[3]);
        assert!(builds[0] != builds[1] && builds[1] != builds[2]);
        assert_eq!(fs::read_dir(data.join(FOLDER)).expect("there").count(), 2, "this and the last");
        fs::remove_dir_all(&data).expect("removed");
    }
}
