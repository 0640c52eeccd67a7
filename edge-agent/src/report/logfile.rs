//! The agent's own log file: whole lines, so many bytes on the disk at most, and never a reason for
//! the agent to stop. Crates that rotate files end the program when a rename fails, which a full
//! disk or a hand that deletes a log can bring about.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogConfig;
use crate::report::Report;
use crate::terminal::log_line;

/// The file of this process, once it holds the lock on the agent's folder.
static FILE: Mutex<Option<LogFile>> = Mutex::new(None);

/// From now on lines go to the file too.
pub fn begin(config: &LogConfig) {
    if let Ok(mut file) = FILE.lock() {
        *file = Some(LogFile::open(&config.file, config.bytes_max, config.files));
    }
}

/// What a run came to, a line for each dataset and problem.
pub fn report(report: &Report) {
    for one in &report.datasets {
        tracing::info!(
            command = report.command,
            store = one.store.as_str(),
            dataset = one.dataset.as_str(),
            batches = one.batches,
            rows = one.rows,
            bytes = one.bytes,
            unproven = one.unproven.len(),
            seconds = one.seconds,
            "read"
        );
    }
    let upload = &report.upload;
    if upload.batches + upload.acknowledged > 0 {
        tracing::info!(
            batches = upload.batches,
            bytes = upload.bytes,
            acknowledged = upload.acknowledged,
            waiting = upload.waiting,
            "uploaded"
        );
    }
    for problem in &report.problems {
        let store = problem.store.as_ref().map(|store| store.as_str());
        let dataset = problem.dataset.as_ref().map(|dataset| dataset.as_str());
        tracing::warn!(store, dataset, hint = problem.hint, "{}", problem.message);
    }
}

/// For the subscriber: lines before [`begin`] go nowhere.
pub struct ToFile {
    pub json: bool,
}

impl<'a> MakeWriter<'a> for ToFile {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        Self { json: self.json }
    }
}

impl Write for ToFile {
    /// A line and its end; the subscriber hands over no less.
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if let Ok(mut file) = FILE.lock()
            && let Some(file) = file.as_mut()
        {
            file.write_line(&log_line(line, self.json));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A file and its elder ones: `agent.log`, `agent.log.1` and so on, the oldest last.
pub struct LogFile {
    path: PathBuf,
    /// Maximum size of one file, in bytes, so that all together stay within the limit.
    bytes_max: u64,
    files: u32,
    open: Option<(File, u64)>,
    /// Lines that could not be written since the last that could.
    lost: u64,
}

impl LogFile {
    /// Files beyond `files`, of an earlier configuration, are deleted.
    pub fn open(path: &Path, bytes_max: u64, files: u32) -> Self {
        let files = files.max(1);
        let log = Self { path: path.to_owned(), bytes_max: bytes_max / u64::from(files), files, open: None, lost: 0 };
        log.delete_surplus();
        log
    }

    /// Writes a line, cut to what a file may hold. One that cannot be written is counted.
    pub fn write_line(&mut self, line: &[u8]) {
        let told = match self.lost {
            0 => Vec::new(),
            lost => {
                format!("{{\"level\":\"WARN\",\"message\":\"{lost} line(s) could not be written\"}}\n").into_bytes()
            }
        };
        let whole = [&told, line].concat();
        let room = usize::try_from(self.bytes_max).unwrap_or(usize::MAX);
        let cut = if whole.len() > room { [&whole[..room.saturating_sub(1)], b"\n"].concat() } else { whole };
        match self.append(&cut) {
            Ok(()) => self.lost = 0,
            Err(_) => {
                self.lost += 1;
                self.open = None;
            }
        }
    }

    fn append(&mut self, line: &[u8]) -> std::io::Result<()> {
        let length = line.len() as u64;
        let (mut file, mut size) = self.opened()?;
        if size > 0 && size + length > self.bytes_max {
            drop(file);
            self.rotate();
            (file, size) = self.opened()?;
            if size > 0 {
                // It could not be set aside. The limit counts for more than old lines.
                file.set_len(0)?;
                size = 0;
            }
        }
        if let Err(error) = file.write_all(line) {
            // Half a line is no line.
            let _ = file.set_len(size);
            return Err(error);
        }
        self.open = Some((file, size + length));
        Ok(())
    }

    /// The file at hand and its length.
    fn opened(&mut self) -> std::io::Result<(File, u64)> {
        // One that somebody deleted or moved away would take lines that nobody can read.
        if let Some((file, size)) = self.open.take()
            && self.path.exists()
        {
            return Ok((file, size));
        }
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }

    /// Each file takes the next one's name; the oldest goes.
    fn rotate(&self) {
        let last = self.files - 1;
        let _ = fs::remove_file(self.elder(last));
        for number in (0..last).rev() {
            let _ = fs::rename(self.elder(number), self.elder(number + 1));
        }
    }

    fn elder(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn delete_surplus(&self) {
        let (Some(folder), Some(name)) = (self.path.parent(), self.path.file_name().and_then(|name| name.to_str()))
        else {
            return;
        };
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let found = entry.file_name();
            let number =
                found.to_str().and_then(|found| found.strip_prefix(name)?.strip_prefix('.')?.parse::<u32>().ok());
            if number.is_some_and(|number| number >= self.files) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All files' bytes, the oldest first.
    fn read(log: &LogFile) -> (Vec<u8>, Vec<u64>) {
        let (mut all, mut sizes) = (Vec::new(), Vec::new());
        for number in (0..log.files).rev() {
            let bytes = fs::read(log.elder(number)).unwrap_or_default();
            sizes.push(bytes.len() as u64);
            all.extend(bytes);
        }
        (all, sizes)
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn files_hold_the_newest_lines_whole_and_never_more_bytes_than_allowed(
            lengths in proptest::collection::vec(1_usize..120, 1..200),
            files in 1_u32..5,
            reopen in 1_usize..50,
        ) {
            let folder = folder();
            let path = folder.path().join("agent.log");
            let bytes_max = u64::from(files) * 130;
            let mut log = LogFile::open(&path, bytes_max, files);
            let mut written = Vec::new();
            for (index, length) in lengths.iter().enumerate() {
                if index % reopen == 0 {
                    log = LogFile::open(&path, bytes_max, files);
                }
                let line = format!("{index:-<length$}\n");
                written.extend_from_slice(line.as_bytes());
                log.write_line(line.as_bytes());
                let (kept, sizes) = read(&log);
                prop_assert!(sizes.iter().sum::<u64>() <= bytes_max, "{:?}", sizes);
                prop_assert!(written.ends_with(&kept) && kept.ends_with(line.as_bytes()));
                let whole = written.len() == kept.len() || written[written.len() - kept.len() - 1] == b'\n';
                prop_assert!(whole, "it begins with a whole line");
            }
            prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count() as u32 <= files, true);
        }
    }

    #[test]
    fn a_line_longer_than_a_file_is_cut_and_a_smaller_number_of_files_deletes_the_rest() {
        let folder = folder();
        let path = folder.path().join("agent.log");
        let mut log = LogFile::open(&path, 400, 4);
        (0..10).for_each(|_| log.write_line(&[&[b'x'; 300][..], b"\n"].concat()));
        assert_eq!(read(&log).1, [100; 4]);
        fs::write(folder.path().join("agent.log.old"), "mine").unwrap();
        let log = LogFile::open(&path, 400, 2);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "two of ours and one of somebody's");
        drop(log);
    }

    #[test]
    fn a_file_that_is_deleted_begins_again_and_lines_that_were_lost_are_counted() {
        let folder = folder();
        let place = folder.path().join("logs");
        let path = place.join("agent.log");
        let mut log = LogFile::open(&path, 4000, 4);
        log.write_line(b"one\n");
        fs::remove_dir_all(&place).unwrap();
        // A file stands where the folder was: nothing can be written.
        fs::write(&place, "").unwrap();
        log.write_line(b"two\n");
        log.write_line(b"three\n");
        fs::remove_file(&place).unwrap();
        log.write_line(b"four\n");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("2 line(s) could not be written") && text.ends_with("four\n"), "{text}");
        assert!(!text.contains("one") && !text.contains("two"), "{text}");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_cannot_be_set_aside_is_emptied_rather_than_grown() {
        let folder = folder();
        let path = folder.path().join("agent.log");
        let mut log = LogFile::open(&path, 200, 2);
        // A folder that is not empty bears the name of the elder file: no rename takes its place.
        fs::create_dir_all(folder.path().join("agent.log.1/x")).unwrap();
        (0..10).for_each(|number| log.write_line(format!("{number:->50}\n").as_bytes()));
        let size = fs::metadata(&path).unwrap().len();
        assert!((1..=100).contains(&size), "{size}");
    }
}
