//! Windows: how the tokens of a long prompt are laid out for an encoder that reads a few at once.

/// One thing that a prompt is made of, once it has tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A token.
    Token(u32),
    /// A learned embedding: its number, and how many positions it takes.
    Learned {
        /// Which one, in the caller's list.
        index: usize,
        /// How many vectors it has.
        vectors: usize,
    },
    /// The end of a window.
    Break,
}

/// One position of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// A token of the vocabulary.
    Token(u32),
    /// Vector `vector` of learned embedding `index`, in place of a token's.
    Vector {
        /// Which embedding.
        index: usize,
        /// Which of its vectors.
        vector: usize,
    },
}

/// How windows are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunking {
    /// Positions in a window without its start and end; CLIP has 75.
    pub room: usize,
    /// The token of a comma.
    pub comma: Option<u32>,
    /// Where a window is full and a comma stands among its last so many positions, what follows the
    /// comma moves to the next window; 0 turns that off. A1111's default is 20.
    pub back: usize,
}

/// The text of one window, at most [`Chunking::room`] positions, each with its weight.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chunk {
    /// The positions.
    pub slots: Vec<Slot>,
    /// The weight of each.
    pub weights: Vec<f64>,
}

impl Chunk {
    fn push(&mut self, slot: Slot, weight: f64) {
        self.slots.push(slot);
        self.weights.push(weight);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self { slots: self.slots.split_off(at), weights: self.weights.split_off(at) }
    }
}

/// Lays items out in windows, at least one.
///
/// A window is full at [`Chunking::room`]; a learned embedding is never cut unless it is longer
/// than a window.
pub fn chunks(items: &[(Item, f64)], plan: Chunking) -> Vec<Chunk> {
    let room = plan.room.max(1);
    let mut done: Vec<Chunk> = Vec::new();
    let mut open = Chunk::default();
    let mut comma: Option<usize> = None;
    for &(item, weight) in items {
        let (vectors, token) = match item {
            Item::Break => {
                done.push(std::mem::take(&mut open));
                comma = None;
                continue;
            }
            Item::Token(token) => (1, Some(token)),
            Item::Learned { vectors, .. } => (vectors, None),
        };
        let is_comma = token.is_some() && token == plan.comma;
        if open.slots.len() == room {
            // A comma that finds the window full starts the next one, alone.
            let cut = comma.filter(|&at| !is_comma && open.slots.len() - at <= plan.back);
            let moved = cut.map(|at| open.split_off(at + 1));
            done.push(std::mem::replace(&mut open, moved.unwrap_or_default()));
            comma = None;
        }
        if open.slots.len() + vectors > room && !open.slots.is_empty() {
            done.push(std::mem::take(&mut open));
            comma = None;
        }
        if is_comma {
            comma = Some(open.slots.len());
        }
        match item {
            Item::Token(token) => open.push(Slot::Token(token), weight),
            Item::Learned { index, vectors } => {
                for vector in 0..vectors {
                    if open.slots.len() == room {
                        done.push(std::mem::take(&mut open));
                    }
                    open.push(Slot::Vector { index, vector }, weight);
                }
            }
            Item::Break => {}
        }
    }
    if !open.slots.is_empty() || done.is_empty() {
        done.push(open);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMA: u32 = 7;
    const PLAN: Chunking = Chunking { room: 5, comma: Some(COMMA), back: 3 };

    fn tokens(ids: &[u32]) -> Vec<(Item, f64)> {
        ids.iter().map(|&id| (if id == 0 { Item::Break } else { Item::Token(id) }, 1.0)).collect()
    }

    fn laid(ids: &[u32]) -> Vec<Vec<u32>> {
        let id = |slot: &Slot| match slot {
            Slot::Token(id) => *id,
            Slot::Vector { vector, .. } => 900 + *vector as u32,
        };
        chunks(&tokens(ids), PLAN).iter().map(|c| c.slots.iter().map(id).collect()).collect()
    }

    #[test]
    fn a_short_prompt_is_one_window() {
        assert_eq!(laid(&[]), [Vec::<u32>::new()]);
        assert_eq!(laid(&[1, 2, 3, 4, 5]), [[1, 2, 3, 4, 5]]);
        assert_eq!(laid(&[1, 2, 3, 4, 5, 6]), [vec![1, 2, 3, 4, 5], vec![6]]);
    }

    #[test]
    fn breaks_end_a_window_even_an_empty_one() {
        assert_eq!(laid(&[1, 0, 2]), [[1], [2]]);
        assert_eq!(laid(&[1, 0, 0, 2]), [vec![1], vec![], vec![2]]);
        assert_eq!(laid(&[0]), [Vec::<u32>::new()]);
    }

    #[test]
    fn what_follows_a_near_comma_moves_on() {
        assert_eq!(laid(&[1, 2, COMMA, 4, 5, 6]), [vec![1, 2, COMMA], vec![4, 5, 6]]);
        // The comma is too far back.
        assert_eq!(laid(&[1, COMMA, 3, 4, 5, 6]), [vec![1, COMMA, 3, 4, 5], vec![6]]);
        // A comma that does not fit starts the next window; nothing moves.
        assert_eq!(laid(&[1, 2, COMMA, 4, 5, COMMA]), [vec![1, 2, COMMA, 4, 5], vec![COMMA]]);
        // A comma at the very end of a window moves nothing.
        assert_eq!(laid(&[1, 2, 3, 4, COMMA, 6]), [vec![1, 2, 3, 4, COMMA], vec![6]]);
        let off = Chunking { back: 0, ..PLAN };
        assert_eq!(chunks(&tokens(&[1, 2, COMMA, 4, 5, 6]), off)[0].slots.len(), 5);
    }

    #[test]
    fn a_learned_embedding_stays_together() {
        let learned = |vectors| (Item::Learned { index: 2, vectors }, 1.5);
        let mut items = tokens(&[1, 2, 3]);
        items.push(learned(3));
        let made = chunks(&items, PLAN);
        assert_eq!((made[0].slots.len(), made[1].slots.len()), (3, 3));
        assert_eq!(made[1].slots[2], Slot::Vector { index: 2, vector: 2 });
        assert_eq!(made[1].weights, [1.5; 3]);
        // One that is longer than a window is cut.
        let long = chunks(&[learned(12)], PLAN);
        assert_eq!(long.iter().map(|c| c.slots.len()).collect::<Vec<_>>(), [5, 5, 2]);
    }
}
