//! What can be said of an object and of a scene, each with its words.

use serde::{Deserialize, Serialize};

/// Declares an attribute: an enum whose variants each carry the words they go by, the usual one first.
macro_rules! attribute {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident: [$first:literal $(, $more:literal)*],)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every value, in a fixed order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The usual word.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $first,)+ }
            }

            /// All the words or phrases it goes by in captions, the usual one first.
            pub fn phrases(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$first $(, $more)*],)+ }
            }

            /// Its place in [`Self::ALL`].
            pub fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

attribute! {
    /// The outline of an object. All stand upright.
    Shape {
        /// A disc.
        Circle: ["circle", "disc"],
        /// An axis-aligned square.
        Square: ["square", "box"],
        /// An isosceles triangle that points up.
        Triangle: ["triangle"],
        /// A square on its corner, a little taller than wide.
        Diamond: ["diamond", "rhombus"],
        /// A five-pointed star, one point up.
        Star: ["star"],
        /// A plus sign.
        Cross: ["cross", "plus"],
        /// A disc with a round hole.
        Ring: ["ring", "donut"],
        /// A heart, its point down.
        Heart: ["heart"],
    }
}

attribute! {
    /// The colour of an object.
    Colour {
        /// A warm red.
        Red: ["red", "crimson"],
        /// Orange.
        Orange: ["orange"],
        /// A golden yellow.
        Yellow: ["yellow", "golden"],
        /// A leaf green.
        Green: ["green"],
        /// Between blue and green.
        Cyan: ["cyan", "turquoise"],
        /// A strong blue.
        Blue: ["blue"],
        /// Purple.
        Purple: ["purple", "violet"],
        /// Pink.
        Pink: ["pink"],
    }
}

attribute! {
    /// The size class of an object.
    Size {
        /// A radius of 7.0 to 8.0 pixels.
        Small: ["small", "little"],
        /// A radius of 10.4 to 11.4 pixels.
        Large: ["large", "big"],
    }
}

attribute! {
    /// The cell of a 3x3 grid in which an object's centre lies.
    Place {
        /// Row 0, column 0.
        TopLeft: ["in the top left corner", "at the top left", "in the upper left"],
        /// Row 0, column 1.
        Top: ["at the top", "at the top center"],
        /// Row 0, column 2.
        TopRight: ["in the top right corner", "at the top right", "in the upper right"],
        /// Row 1, column 0.
        Left: ["on the left", "on the left side"],
        /// Row 1, column 1.
        Center: ["in the center", "in the middle", "in the centre"],
        /// Row 1, column 2.
        Right: ["on the right", "on the right side"],
        /// Row 2, column 0.
        BottomLeft: ["in the bottom left corner", "at the bottom left", "in the lower left"],
        /// Row 2, column 1.
        Bottom: ["at the bottom", "at the bottom center"],
        /// Row 2, column 2.
        BottomRight: ["in the bottom right corner", "at the bottom right", "in the lower right"],
    }
}

attribute! {
    /// How the first of two objects lies to the second, judged by their centres.
    Relation {
        /// The first is left of the second.
        LeftOf: ["to the left of", "left of"],
        /// The first is right of the second.
        RightOf: ["to the right of", "right of"],
        /// The first is above the second.
        Above: ["above", "over"],
        /// The first is below the second.
        Below: ["below", "under"],
    }
}

attribute! {
    /// The plain colour behind the objects. None is close to an object's colour.
    Background {
        /// A soft white.
        White: ["white"],
        /// A soft black.
        Black: ["black"],
        /// A middle gray.
        Gray: ["gray", "grey"],
        /// A light sand colour.
        Beige: ["beige", "cream"],
        /// A dark blue.
        Navy: ["navy"],
        /// A chocolate brown.
        Brown: ["brown"],
    }
}

impl Colour {
    /// The colour as 8-bit sRGB.
    pub const fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [222, 48, 54],
            Self::Orange => [244, 126, 34],
            Self::Yellow => [250, 212, 56],
            Self::Green => [46, 160, 80],
            Self::Cyan => [44, 194, 208],
            Self::Blue => [36, 92, 222],
            Self::Purple => [142, 52, 200],
            Self::Pink => [242, 112, 172],
        }
    }
}

impl Background {
    /// The colour as 8-bit sRGB.
    pub const fn rgb(self) -> [u8; 3] {
        match self {
            Self::White => [248, 248, 244],
            Self::Black => [22, 24, 30],
            Self::Gray => [132, 138, 146],
            Self::Beige => [236, 216, 180],
            Self::Navy => [34, 50, 104],
            Self::Brown => [104, 70, 52],
        }
    }
}

impl Size {
    /// The smallest and the largest radius of the class, in pixels.
    pub const fn radii(self) -> (f64, f64) {
        match self {
            Self::Small => (7.0, 8.0),
            Self::Large => (10.4, 11.4),
        }
    }

    /// The class of a radius: small below 9.2 pixels.
    pub fn of(radius: f64) -> Self {
        if radius < 9.2 { Self::Small } else { Self::Large }
    }
}

impl Place {
    /// The cell's row (0 is the top one) and column (0 is the left one).
    pub fn cell(self) -> (usize, usize) {
        (self.index() / 3, self.index() % 3)
    }

    /// The middle of the cell, in pixels from the picture's top left corner, as (x, y).
    pub fn middle(self) -> (f64, f64) {
        let (row, column) = self.cell();
        (14.0 + 18.0 * column as f64, 14.0 + 18.0 * row as f64)
    }

    /// The cell in which a centre lies: the borders stand at 23 and 41 pixels.
    pub fn of(x: f64, y: f64) -> Self {
        let third = |v: f64| usize::from(v >= 23.0) + usize::from(v >= 41.0);
        Self::ALL[3 * third(y) + third(x)]
    }
}

impl Relation {
    /// How far apart two centres must lie along the axis, in pixels, for the relation to hold.
    ///
    /// In a sampled scene the difference is either below 4 (one column or row) or above 14.
    pub const REACH: f64 = 8.0;

    /// The same fact seen from the other object.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::LeftOf => Self::RightOf,
            Self::RightOf => Self::LeftOf,
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }

    /// Whether it holds between a centre `a` and a centre `b`, both (x, y) with y pointing down.
    pub fn holds(self, a: (f64, f64), b: (f64, f64)) -> bool {
        match self {
            Self::LeftOf => b.0 - a.0 >= Self::REACH,
            Self::RightOf => a.0 - b.0 >= Self::REACH,
            Self::Above => b.1 - a.1 >= Self::REACH,
            Self::Below => a.1 - b.1 >= Self::REACH,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apart(a: [u8; 3], b: [u8; 3]) -> f64 {
        (0..3).map(|i| (f64::from(a[i]) - f64::from(b[i])).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn colours_stand_well_apart() {
        let objects: Vec<_> = Colour::ALL.iter().map(|c| c.rgb()).collect();
        let grounds: Vec<_> = Background::ALL.iter().map(|b| b.rgb()).collect();
        for (i, &a) in objects.iter().enumerate() {
            for &b in &objects[..i] {
                assert!(apart(a, b) >= 80.0, "{a:?} {b:?} {}", apart(a, b));
            }
            for &b in &grounds {
                assert!(apart(a, b) >= 100.0, "{a:?} {b:?} {}", apart(a, b));
            }
        }
        for (i, &a) in grounds.iter().enumerate() {
            for &b in &grounds[..i] {
                assert!(apart(a, b) >= 70.0, "{a:?} {b:?} {}", apart(a, b));
            }
        }
    }

    #[test]
    fn places_and_relations_agree_with_their_geometry() {
        for &place in Place::ALL {
            let (x, y) = place.middle();
            for d in [-8.9, 0.0, 8.9] {
                assert_eq!(Place::of(x + d, y - d), place);
            }
        }
        let (a, b) = ((10.0, 40.0), (30.0, 20.0));
        assert!(Relation::LeftOf.holds(a, b) && Relation::Below.holds(a, b));
        for &relation in Relation::ALL {
            assert_eq!(relation.holds(a, b), relation.reversed().holds(b, a));
            assert!(!relation.holds(a, (12.0, 38.0)));
        }
        for &size in Size::ALL {
            let (low, high) = size.radii();
            assert!(Size::of(low) == size && Size::of(high) == size);
        }
    }
}
