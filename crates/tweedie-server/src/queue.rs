//! Who waits for what: bounded, and fair between clients.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What waits to be taken, a line for each client; clients take turns, each line in order.
pub struct Queue<T> {
    most: usize,
    lines: Mutex<Lines<T>>,
    filled: Condvar,
}

struct Lines<T> {
    /// Clients with something in their line, the next one first.
    turns: VecDeque<String>,
    of: HashMap<String, VecDeque<T>>,
    waiting: usize,
    closed: bool,
}

impl<T: PartialEq> Queue<T> {
    /// Room for so many.
    pub fn new(most: usize) -> Self {
        let lines = Lines { turns: VecDeque::new(), of: HashMap::new(), waiting: 0, closed: false };
        Self { most, lines: Mutex::new(lines), filled: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Lines<T>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an item at the end of its client's line; gives it back where there is no room.
    ///
    /// # Errors
    ///
    /// The item, where the queue is full or closed.
    pub fn push(&self, client: &str, item: T) -> Result<(), T> {
        self.put(client, item, self.most)
    }

    /// As [`Queue::push`], without a bound: for what was accepted before a restart.
    ///
    /// # Errors
    ///
    /// The item, where the queue is closed.
    pub fn push_again(&self, client: &str, item: T) -> Result<(), T> {
        self.put(client, item, usize::MAX)
    }

    fn put(&self, client: &str, item: T, most: usize) -> Result<(), T> {
        let mut lines = self.lock();
        if lines.closed || lines.waiting >= most {
            return Err(item);
        }
        lines.waiting += 1;
        let line = lines.of.entry(client.to_owned()).or_default();
        line.push_back(item);
        if line.len() == 1 {
            lines.turns.push_back(client.to_owned());
        }
        self.filled.notify_one();
        Ok(())
    }

    /// The next item, waited for; `None` once the queue is closed.
    pub fn pop(&self) -> Option<T> {
        let mut lines = self.lock();
        loop {
            if lines.closed {
                return None;
            }
            if let Some(client) = lines.turns.pop_front() {
                let line = lines.of.get_mut(&client);
                let item = line.and_then(VecDeque::pop_front);
                if lines.of.get(&client).is_some_and(|line| !line.is_empty()) {
                    lines.turns.push_back(client);
                } else {
                    lines.of.remove(&client);
                }
                if item.is_some() {
                    lines.waiting -= 1;
                    return item;
                }
                continue;
            }
            lines = self.filled.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes an item out of the line; whether it was there.
    pub fn remove(&self, client: &str, item: &T) -> bool {
        let mut lines = self.lock();
        let Some(line) = lines.of.get_mut(client) else { return false };
        let Some(at) = line.iter().position(|i| i == item) else { return false };
        line.remove(at);
        if line.is_empty() {
            lines.of.remove(client);
            lines.turns.retain(|c| c != client);
        }
        lines.waiting -= 1;
        true
    }

    /// How many are taken before this one; `None` where it does not wait.
    pub fn position(&self, client: &str, item: &T) -> Option<usize> {
        let lines = self.lock();
        let at = lines.of.get(client)?.iter().position(|i| i == item)?;
        let turn = lines.turns.iter().position(|c| c == client)?;
        // Clients whose turn comes earlier are served once more than those after.
        let before = |(i, other): (usize, &String)| {
            let served = if i < turn { at + 1 } else { at };
            lines.of.get(other).map_or(0, VecDeque::len).min(served)
        };
        let others = lines.turns.iter().enumerate().filter(|(i, _)| *i != turn);
        Some(at + others.map(before).sum::<usize>())
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.lock().waiting
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets nobody in or out any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_take_turns_and_lines_keep_their_order() {
        let queue = Queue::new(10);
        for (client, item) in [("a", 1), ("a", 2), ("a", 3), ("b", 10), ("c", 20), ("b", 11)] {
            queue.push(client, item).unwrap();
        }
        let order = [1, 10, 20, 2, 11, 3];
        for (at, item) in order.iter().enumerate() {
            let client = if *item < 10 {
                "a"
            } else if *item < 20 {
                "b"
            } else {
                "c"
            };
            assert_eq!(queue.position(client, item), Some(at), "{item}");
        }
        assert_eq!(order.map(|_| queue.pop().unwrap()), order);
        assert_eq!(queue.position("a", &1), None);
    }

    #[test]
    fn it_is_bounded_and_can_be_left() {
        let queue = Queue::new(2);
        queue.push("a", 1).unwrap();
        queue.push("b", 2).unwrap();
        assert_eq!(queue.push("c", 3), Err(3));
        assert!(queue.remove("a", &1) && !queue.remove("a", &1));
        assert_eq!(queue.len(), 1);
        queue.push("a", 4).unwrap();
        queue.push_again("a", 5).unwrap();
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(2), Some(4), Some(5)]);
        queue.push("a", 6).unwrap();
        queue.close();
        assert_eq!((queue.pop(), queue.push("a", 7)), (None, Err(7)));
    }
}
