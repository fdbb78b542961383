//! A client of the witness that asks all the time, and notes how long it has to wait.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::run::{patient, wait_for};
use super::witness::PORT;

/// How often it asks: the resolution of its wait.
const ASK_EVERY: Duration = Duration::from_millis(1);
/// For answers to come before a checkpoint and after a restore.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Asks without waiting for the answers and notes the longest time between two of them.
#[derive(Debug)]
pub struct Client {
    answers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    asking: JoinHandle<()>,
    listening: JoinHandle<Duration>,
}

impl Client {
    /// Connects, and asks from now on.
    pub fn start(address: Ipv4Addr) -> Client {
        let stream = TcpStream::connect((address, PORT)).unwrap();
        stream.set_nodelay(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicU64::new(0));
        let mut writer = stream.try_clone().unwrap();
        let stopping = stop.clone();
        let asking = thread::spawn(move || {
            while !stopping.load(Ordering::SeqCst) && writer.write_all(b"?\n").is_ok() {
                thread::sleep(ASK_EVERY);
            }
            let _ = writer.shutdown(std::net::Shutdown::Both);
        });
        let (counting, stopping) = (answers.clone(), stop.clone());
        let listening = thread::spawn(move || {
            let (mut longest, mut last) = (Duration::ZERO, Instant::now());
            for line in BufReader::new(stream).lines() {
                if line.is_err() || stopping.load(Ordering::SeqCst) {
                    break;
                }
                longest = longest.max(last.elapsed());
                last = Instant::now();
                counting.fetch_add(1, Ordering::SeqCst);
            }
            longest
        });
        let client = Client { answers, stop, asking, listening };
        client.wait_for_answer();
        client
    }

    /// Waits for an answer that comes from now on.
    pub fn wait_for_answer(&self) {
        let before = self.answers.load(Ordering::SeqCst);
        let answered = wait_for("an answer", patient(ANSWER_LIMIT), || {
            (self.answers.load(Ordering::SeqCst) > before).then_some(())
        });
        answered.unwrap_or_else(|e| panic!("{e}"));
    }

    /// Ends, and tells the longest time.
    pub fn stop(self) -> Duration {
        self.stop.store(true, Ordering::SeqCst);
        self.asking.join().unwrap();
        self.listening.join().unwrap()
    }
}
