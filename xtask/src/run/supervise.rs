//! Starts a process whose code may crash or never end, and watches it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::parent_id;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::report::{Ending, Event};

/// The longest line of a program, in bytes. Longer lines are passed on in parts.
const LONGEST_LINE: u64 = 1 << 26;

/// Starts `command` and calls `each` for every line that it prints, with the program's own text and
/// the report in the line. Kills the process if an invocation takes longer than `limit`.
pub(super) fn watch(
    command: &mut Command,
    limit: Option<Duration>,
    each: &mut dyn FnMut(Option<String>, Option<Event>),
) -> std::io::Result<Ending> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().expect("piped");
    // The queue is short, so a program that prints without end has to wait for its reader.
    let (sender, lines) = sync_channel(64);
    std::thread::spawn(move || read(stdout, &sender));
    let ended = follow(&lines, limit, each);
    // The thread that reads ends when its lines have no receiver.
    drop(lines);
    match ended {
        Ok(()) => child.wait().map(Ending::Exited),
        Err(limit) => kill(&mut child).map(|()| Ending::TimedOut(limit)),
    }
}

fn kill(child: &mut Child) -> std::io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

fn read(stdout: ChildStdout, sender: &SyncSender<Vec<u8>>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        match stdout.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => line.truncate(line.strip_suffix(b"\n").map_or(line.len(), <[u8]>::len)),
        }
        if sender.send(line).is_err() {
            return;
        }
    }
}

/// Passes on lines until there are no more, or until an invocation has taken longer than `limit`.
/// In that case, the limit is the error.
fn follow(
    lines: &Receiver<Vec<u8>>,
    limit: Option<Duration>,
    each: &mut dyn FnMut(Option<String>, Option<Event>),
) -> Result<(), Duration> {
    let mut deadline: Option<(Instant, Duration)> = None;
    loop {
        let line = match deadline {
            None => lines.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some((deadline, limit)) => match deadline.checked_duration_since(Instant::now()) {
                None => return Err(limit),
                Some(left) => lines.recv_timeout(left),
            },
        };
        let line = match (line, deadline) {
            (Ok(line), _) => line,
            (Err(RecvTimeoutError::Timeout), Some((_, limit))) => return Err(limit),
            (Err(_), _) => return Ok(()),
        };
        let (own, event) = Event::receive(&line);
        match &event {
            Some(Event::Invoke(_)) => deadline = limit.map(|limit| (Instant::now() + limit, limit)),
            Some(_) => deadline = None,
            // The program's own text does not show that an invocation has ended.
            None => {}
        }
        each(own, event);
    }
}

/// Ends this process soon after its parent process has ended, since nobody would stop an endless
/// loop then.
pub(super) fn end_with_parent() {
    let parent = parent_id();
    std::thread::spawn(move || {
        while parent_id() == parent {
            std::thread::sleep(Duration::from_millis(500));
        }
        std::process::abort();
    });
}
