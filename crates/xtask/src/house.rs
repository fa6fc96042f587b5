//! Where the repository lies and which files it has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The repository's root.
pub(crate) fn root() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).map(Path::to_path_buf).context("xtask lies two folders below the root")
}

/// Every file below the root that belongs to the project, as (path from the root, text); files that
/// are no text are left out.
pub(crate) fn texts() -> Result<Vec<(String, String)>> {
    let root = root()?;
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                // A module may be called `target`; what is built lies at the root.
                let is_made = folder == root && matches!(name.as_str(), "target" | ".git" | "data");
                if !is_made {
                    folders.push(path);
                }
            } else if let Ok(text) = fs::read_to_string(&path) {
                let from_root = path.strip_prefix(&root)?.to_string_lossy().into_owned();
                found.push((from_root, text));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A crate of the workspace.
pub(crate) struct Crate {
    pub name: String,
    /// Height in the house, 0 to 5; 6 is beside the house.
    pub floor: Option<u64>,
    /// Names of the workspace's crates that it uses in its product code.
    pub uses: Vec<String>,
    /// Names of all its dependencies outside development.
    pub dependencies: Vec<String>,
}

/// The workspace's crates, as cargo sees them.
pub(crate) fn crates() -> Result<Vec<Crate>> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root()?)
        .output()
        .context("cargo metadata could not start")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    Ok(packages.iter().map(read_crate).collect())
}

fn read_crate(package: &Value) -> Crate {
    let normal: Vec<&Value> = package["dependencies"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|dependency| dependency["kind"].is_null())
        .collect();
    let name_of = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let ours = normal.iter().filter(|dependency| dependency["path"].is_string());
    Crate {
        name: name_of(package),
        floor: package["metadata"]["house"]["floor"].as_u64(),
        uses: ours.map(|dependency| name_of(dependency)).collect(),
        dependencies: normal.iter().map(|dependency| name_of(dependency)).collect(),
    }
}
