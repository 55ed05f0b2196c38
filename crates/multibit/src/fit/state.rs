//! The one list of what a step reads and writes of a weight, for slices, tensors and buffers alike.

use core::ops::Range;

use super::{check_len, check_weight};

/// AMSGrad's moments, of a weight's elements or of its coordinates.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moments<T> {
    /// First moment.
    pub m: T,
    /// Second moment.
    pub v: T,
    /// Largest second moment so far.
    pub v_max: T,
}

impl<T> Moments<T> {
    /// Each moment by `f`, in the order of the fields.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Moments<U> {
        Moments {
            m: f(self.m),
            v: f(self.v),
            v_max: f(self.v_max),
        }
    }

    /// The moments by reference.
    pub fn as_ref(&self) -> Moments<&T> {
        let Self { m, v, v_max } = self;
        Moments { m, v, v_max }
    }

    /// The moments by mutable reference.
    pub fn as_mut(&mut self) -> Moments<&mut T> {
        let Self { m, v, v_max } = self;
        Moments { m, v, v_max }
    }

    /// The moments of two in pairs.
    pub fn zip<U>(self, other: Moments<U>) -> Moments<(T, U)> {
        Moments {
            m: (self.m, other.m),
            v: (self.v, other.v),
            v_max: (self.v_max, other.v_max),
        }
    }

    /// The moments with their names, in the order of the fields.
    pub fn named(self) -> [(&'static str, T); 3] {
        [("m", self.m), ("v", self.v), ("v_max", self.v_max)]
    }
}

impl Moments<&mut [f32]> {
    /// The moments of one place.
    pub(super) fn set(&mut self, place: usize, to: Moments<f32>) {
        self.m[place] = to.m;
        self.v[place] = to.v;
        self.v_max[place] = to.v_max;
    }

    /// A part of each moment.
    pub(super) fn part(&mut self, range: Range<usize>) -> Moments<&mut [f32]> {
        self.as_mut().map(|moment| &mut moment[range.clone()])
    }
}

/// One weight in training form with its moments in both domains, `groups` groups of `len`.
///
/// Invariants that every step keeps: bits of a code from its group's width on are 0; the first
/// `width` coordinates of a group are positive, the others 0. The moments of both domains advance at
/// every step of any kind; those of absent slots are 0.
///
/// # Shapes
/// - `codes`, `weight`: `[groups, len]`; bit `i` of a code is set where basis `i` is −1
/// - `coordinates`, `alpha`: `[groups, max_bits]`
/// - `widths`: `[groups]`
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct State<C, F, W = C> {
    /// Signs on all bases, one integer a weight.
    pub codes: C,
    /// Coordinates `α`.
    pub coordinates: F,
    /// Bitwidths `I`.
    pub widths: W,
    /// Moments of the weights.
    pub weight: Moments<F>,
    /// Moments of the coordinates.
    pub alpha: Moments<F>,
}

impl<C, F, W> State<C, F, W> {
    /// Each part by the function for its kind, in the order of the fields.
    pub fn map<D, G, X>(
        self,
        codes: impl FnOnce(C) -> D,
        widths: impl FnOnce(W) -> X,
        mut float: impl FnMut(F) -> G,
    ) -> State<D, G, X> {
        State {
            codes: codes(self.codes),
            coordinates: float(self.coordinates),
            widths: widths(self.widths),
            weight: self.weight.map(&mut float),
            alpha: self.alpha.map(float),
        }
    }

    /// The parts of two states in pairs.
    pub fn zip<D, G, X>(self, other: State<D, G, X>) -> State<(C, D), (F, G), (W, X)> {
        State {
            codes: (self.codes, other.codes),
            coordinates: (self.coordinates, other.coordinates),
            widths: (self.widths, other.widths),
            weight: self.weight.zip(other.weight),
            alpha: self.alpha.zip(other.alpha),
        }
    }

    /// The parts by reference.
    pub fn as_ref(&self) -> State<&C, &F, &W> {
        State {
            codes: &self.codes,
            coordinates: &self.coordinates,
            widths: &self.widths,
            weight: self.weight.as_ref(),
            alpha: self.alpha.as_ref(),
        }
    }

    /// The parts by mutable reference.
    pub fn as_mut(&mut self) -> State<&mut C, &mut F, &mut W> {
        State {
            codes: &mut self.codes,
            coordinates: &mut self.coordinates,
            widths: &mut self.widths,
            weight: self.weight.as_mut(),
            alpha: self.alpha.as_mut(),
        }
    }
}

impl<C, F> State<C, F> {
    /// Each part by the function for its kind, with something that both change, in the order of the
    /// fields.
    pub fn each<X, D, G>(
        self,
        context: &mut X,
        mut int: impl FnMut(C, &mut X) -> D,
        mut float: impl FnMut(F, &mut X) -> G,
    ) -> State<D, G> {
        State {
            codes: int(self.codes, context),
            coordinates: float(self.coordinates, context),
            widths: int(self.widths, context),
            weight: self.weight.map(|moment| float(moment, context)),
            alpha: self.alpha.map(|moment| float(moment, context)),
        }
    }
}

/// A [`State`] in slices that a step changes in place.
#[derive(Debug)]
pub struct StateMut<'a> {
    /// Weights of a group.
    pub len: usize,
    /// Slots of a group, 1 to [`MAX_BITS`](crate::MAX_BITS).
    pub max_bits: usize,
    /// The parts.
    pub state: State<&'a mut [u8], &'a mut [f32]>,
}

impl StateMut<'_> {
    pub(super) fn groups(&self) -> usize {
        self.state.widths.len()
    }

    /// Where a group's weights lie.
    pub(super) fn span(&self, group: usize) -> Range<usize> {
        group * self.len..(group + 1) * self.len
    }

    /// Where a group's live slots lie.
    pub(super) fn live(&self, group: usize) -> Range<usize> {
        let first = group * self.max_bits;
        first..first + usize::from(self.state.widths[group])
    }

    /// Where a group's absent slots lie.
    pub(super) fn absent(&self, group: usize) -> Range<usize> {
        self.live(group).end..(group + 1) * self.max_bits
    }

    pub(super) fn check(&self) {
        let State {
            codes,
            coordinates,
            widths,
            weight,
            alpha,
        } = &self.state;
        check_weight(codes, coordinates, widths, self.len, self.max_bits);
        for (name, moment) in weight.as_ref().named() {
            self.check_weights(name, moment.len());
        }
        for (name, moment) in alpha.as_ref().named() {
            check_len(
                format_args!("{name}_alpha"),
                moment.len(),
                self.groups(),
                self.max_bits,
            );
        }
    }

    pub(super) fn check_weights(&self, name: &str, found: usize) {
        check_len(name, found, self.groups(), self.len);
    }

    pub(super) fn check_slots(&self, name: &str, found: usize) {
        check_len(name, found, self.groups(), self.max_bits);
    }
}
