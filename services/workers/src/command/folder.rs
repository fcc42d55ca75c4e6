//! Work folders of programs: one per attempt, with what the program is given in files beside it.
//!
//! ```text
//!   <work_dir>/<worker>/lock                    held while the worker runs
//!   <work_dir>/<worker>/<number>/input_spec.json ..  what the program is given
//!   <work_dir>/<worker>/<number>/work/          where it starts
//! ```
//!
//! What a killed worker left behind is removed by the next one that starts here.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use quintet_contract::id::{WorkerId, escape};
use quintet_worker::program::ProgramInput;
use tracing::{debug, info};

use crate::handler::TaskContext;

/// The file whose lock shows whether a worker runs.
const LOCK: &str = "lock";
/// Longest name of a worker's folder; file systems take 255 bytes.
const MAX_NAME: usize = 200;

/// The folder of one worker; removed at its end.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    next: AtomicU64,
    _lock: File,
}

/// The folder of one attempt.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    files: Vec<(String, PathBuf)>,
}

impl Root {
    /// Makes the worker's folder, and removes those of workers that are gone.
    pub(super) async fn open(work_dir: &Path, worker: &WorkerId) -> io::Result<Self> {
        let (work_dir, worker) = (work_dir.to_owned(), worker.clone());
        let opened = tokio::task::spawn_blocking(move || Self::open_now(&work_dir, &worker));
        opened.await.map_err(io::Error::other)?
    }

    fn open_now(work_dir: &Path, worker: &WorkerId) -> io::Result<Self> {
        std::fs::create_dir_all(work_dir)?;
        // Programs start elsewhere.
        let work_dir = work_dir.canonicalize()?;
        for entry in std::fs::read_dir(&work_dir)?.flatten() {
            clear(&entry.path());
        }
        let mut name = escape(worker.as_str()).into_owned();
        name.truncate(MAX_NAME);
        let path = work_dir.join(name);
        std::fs::create_dir_all(&path)?;
        let lock = File::create(path.join(LOCK))?;
        lock.try_lock().map_err(io::Error::other)?;
        Ok(Self {
            path,
            next: AtomicU64::new(1),
            _lock: lock,
        })
    }

    /// Makes the folder of an attempt, and writes what its program is given.
    pub(super) async fn make(
        &self,
        task: &TaskContext,
        input: &ProgramInput,
    ) -> io::Result<Folder> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(number.to_string());
        debug!(run = %task.run_id(), node = %task.node_id(), path = %path.display(), "creating a folder");
        let mut folder = Folder {
            path,
            files: Vec::new(),
        };
        let made = folder.fill(input).await;
        if let Err(error) = made {
            folder.remove().await;
            return Err(error);
        }
        Ok(folder)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Removes the folder of a worker whose lock is free.
fn clear(folder: &Path) {
    let Ok(lock) = File::open(folder.join(LOCK)) else {
        return;
    };
    if lock.try_lock().is_ok() {
        info!(folder = %folder.display(), "removing the folder of a worker that is gone");
        let _ = std::fs::remove_dir_all(folder);
    }
}

impl Folder {
    async fn fill(&mut self, input: &ProgramInput) -> io::Result<()> {
        tokio::fs::create_dir_all(self.work()).await?;
        for (name, text) in input.texts() {
            let file = self
                .path
                .join(format!("{}.json", name.to_ascii_lowercase()));
            tokio::fs::write(&file, text).await?;
            self.files.push((format!("{name}_FILE"), file));
        }
        Ok(())
    }

    /// Where the program starts.
    pub(super) fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// Variables that name the files with what the program is given.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &Path)> {
        let files = self.files.iter();
        files.map(|(name, path)| (name.as_str(), path.as_path()))
    }

    /// Removes it with everything in it.
    pub(super) async fn remove(self) {
        if let Err(error) = tokio::fs::remove_dir_all(&self.path).await {
            debug!(folder = %self.path.display(), %error, "cannot remove a folder");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(name: &str) -> WorkerId {
        WorkerId::parse(name).unwrap()
    }

    #[test]
    fn what_a_dead_worker_left_behind_is_removed_and_what_a_living_one_has_is_not() {
        let folder = tempfile::TempDir::new().unwrap();
        let living = Root::open_now(folder.path(), &worker("living")).unwrap();
        let dead = folder.path().join("dead");
        std::fs::create_dir_all(dead.join("1/work")).unwrap();
        File::create(dead.join(LOCK)).unwrap();
        let foreign = folder.path().join("foreign");
        std::fs::create_dir(&foreign).unwrap();
        let next = Root::open_now(folder.path(), &worker("a b")).unwrap();
        assert!(!dead.exists());
        assert!(living.path.exists() && next.path.exists() && foreign.exists());
        let path = next.path.clone();
        drop(next);
        assert!(!path.exists());
    }
}
