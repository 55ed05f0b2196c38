//! The runtime as C functions, for hosts that are not Rust: a page, through WebAssembly.
//!
//! An instance holds one model for as long as it lives: the memory of a file that was loaded is never
//! freed, and another file takes an instance of its own. The host writes a file where [`multibit_file`]
//! says and calls [`multibit_load`]; then it writes samples where [`multibit_input`] says, calls
//! [`multibit_run`] and reads [`multibit_scores`]. A function that can fail returns 1 where it did what
//! it should, and 0 where it did not; then [`multibit_text`] says why.
//!
//! Pointers are those of this module's own buffers, and stay until the call that hands them out comes
//! again. A host that calls a function while it writes there, or writes beyond the length, breaks what
//! Rust relies on; nothing here reads or writes through a pointer that the host made up.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::hint;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::file::{FileWeight, Input, Op, Order, PackedFile};
use crate::runtime::{Plan, PlanError};

/// An allocator of few bytes of code, for an instance's one model: what is freed is used again where it was
/// taken last, and else not before the instance ends.
///
/// ```ignore
/// #[global_allocator]
/// static MEMORY: multibit::exports::Arena = multibit::exports::Arena;
/// ```
#[cfg(target_arch = "wasm32")]
pub struct Arena;

#[cfg(target_arch = "wasm32")]
mod arena {
    use core::alloc::{GlobalAlloc, Layout};
    use core::arch::wasm32::{memory_grow, memory_size};
    use core::ptr;
    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::Arena;

    const PAGE: usize = 1 << 16;

    unsafe extern "C" {
        /// Where the linker's own data ends.
        static __heap_base: u8;
    }

    /// The first address that is free; 0 before the first call.
    static FREE: AtomicUsize = AtomicUsize::new(0);

    impl Arena {
        /// Takes so many bytes from an address on, if there is room.
        fn take(start: usize, size: usize) -> Option<()> {
            let end = start.checked_add(size)?;
            let missing = end.saturating_sub(memory_size(0) * PAGE).div_ceil(PAGE);
            if missing > 0 && memory_grow(0, missing) == usize::MAX {
                return None;
            }
            FREE.store(end, Relaxed);
            Some(())
        }
    }

    // SAFETY: a block lies behind all that were taken before and are not given back, and within memory.
    unsafe impl GlobalAlloc for Arena {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let free = match FREE.load(Relaxed) {
                0 => (&raw const __heap_base).addr(),
                free => free,
            };
            let start = free.checked_next_multiple_of(layout.align());
            match start.filter(|&start| Self::take(start, layout.size()).is_some()) {
                Some(start) => ptr::with_exposed_provenance_mut(start),
                None => ptr::null_mut(),
            }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            if block.addr() + layout.size() == FREE.load(Relaxed) {
                FREE.store(block.addr(), Relaxed);
            }
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            if block.addr() + layout.size() == FREE.load(Relaxed)
                && Self::take(block.addr(), size).is_some()
            {
                return block;
            }
            // SAFETY: the caller's block and layout; the new block is another, of `size` bytes.
            unsafe {
                let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                if !new.is_null() {
                    ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                }
                new
            }
        }
    }
}

/// All that an instance knows.
struct State {
    file: Vec<u8>,
    text: String,
    model: Option<Model>,
}

/// The instance, for one call at a time.
struct Instance {
    is_taken: AtomicBool,
    state: UnsafeCell<State>,
}

// SAFETY: only `with` reaches the state, and one call at a time holds it.
unsafe impl Sync for Instance {}

static INSTANCE: Instance = Instance {
    is_taken: AtomicBool::new(false),
    state: UnsafeCell::new(State {
        file: Vec::new(),
        text: String::new(),
        model: None,
    }),
};

/// The call that holds the instance, until it ends.
struct Taken;

impl Taken {
    fn new() -> Self {
        while INSTANCE.is_taken.swap(true, Ordering::Acquire) {
            hint::spin_loop();
        }
        Self
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        INSTANCE.is_taken.store(false, Ordering::Release);
    }
}

struct Model {
    file: &'static PackedFile<'static>,
    input: &'static Input,
    plan: Plan<'static, 'static>,
    buffer: Vec<u32>,
    kernels: Option<Kernels>,
    raw: Vec<u8>,
    scores: Vec<f32>,
}

impl Model {
    fn new(bytes: Vec<u8>) -> Result<Self, String> {
        let bytes = bytes.leak();
        let file = PackedFile::read(bytes).map_err(|error| error.to_string())?;
        let file = Box::leak(Box::new(file));
        let plan = Plan::new(file).map_err(|error| error.to_string())?;
        let input = file.about().input.as_ref();
        let input = input.ok_or_else(|| PlanError::NoInput.to_string())?;
        Ok(Self {
            kernels: Kernels::first(file)?,
            raw: zeros(input.len())?,
            scores: zeros(plan.scores())?,
            buffer: zeros(plan.words())?,
            file,
            input,
            plan,
        })
    }

    fn run(&mut self) -> Result<(), String> {
        let run = self
            .plan
            .run_raw(&self.raw, &mut self.buffer, &mut self.scores);
        run.map_err(|error| error.to_string())
    }
}

/// The weight of the first convolution.
struct Kernels {
    weight: &'static FileWeight<'static>,
    /// The first row of each group.
    rows: Vec<usize>,
}

impl Kernels {
    fn first(file: &'static PackedFile<'static>) -> Result<Option<Self>, String> {
        let convolution = file.about().chain.iter().find_map(|step| match &step.op {
            Op::Conv2d(layer, _) => Some(layer.weight),
            _ => None,
        });
        let Some(weight) = convolution.map(|index| &file.weights()[index]) else {
            return Ok(None);
        };
        let mut rows: Vec<usize> = zeros(weight.grouping().groups(weight.shape()))?;
        let mut end = 0;
        for (group, row) in rows.iter_mut().enumerate() {
            *row = end;
            end += weight.width(group);
        }
        Ok(Some(Self { weight, rows }))
    }

    /// The row of a weight on a basis, and its place there; none where its group has no such basis.
    fn row(&self, place: usize, basis: usize) -> Option<(usize, usize)> {
        let (shape, grouping) = (self.weight.shape(), self.weight.grouping());
        // Its number in the order of the groups, from its place in row-major order.
        let number = grouping.axes().iter().fold(0, |number, &axis| {
            let stride: usize = shape[axis + 1..].iter().product();
            number * shape[axis] + place / stride % shape[axis]
        });
        let (group, number) = (number / grouping.len(), number % grouping.len());
        let is_there = place < shape.iter().product() && basis < self.weight.width(group);
        is_there.then(|| (self.rows[group] + basis, number))
    }
}

/// So many zeros, where there is room.
fn zeros<T: Clone + Default>(len: usize) -> Result<Vec<T>, String> {
    let mut values = Vec::new();
    let room = values.try_reserve_exact(len);
    room.map_err(|_| "the model takes more memory than there is".to_owned())?;
    values.resize(len, T::default());
    Ok(values)
}

fn with<R>(work: impl FnOnce(&mut State) -> R) -> R {
    let _taken = Taken::new();
    // SAFETY: no other call holds it, and this one does until it has done its work.
    work(unsafe { &mut *INSTANCE.state.get() })
}

/// What a model says, or `none` where there is none.
fn of<R>(none: R, work: impl FnOnce(&mut Model) -> R) -> R {
    with(|state| state.model.as_mut().map_or(none, work))
}

/// 1, or 0 with its reason as the text.
fn done(state: &mut State, result: Result<(), String>) -> u32 {
    match result {
        Ok(()) => 1,
        Err(reason) => {
            state.text = reason;
            0
        }
    }
}

/// Sets the text to what a file says; its bytes.
fn say(text: impl FnOnce(&PackedFile<'static>) -> Option<String>) -> usize {
    with(|state| {
        let model = state.model.as_ref();
        let said = model.and_then(|model| text(model.file));
        state.text = said.unwrap_or_default();
        state.text.len()
    })
}

// Each name below is the crate's own by its prefix, which is what `no_mangle` must be sure of.

/// Room for a file of `len` bytes; null where there is none.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_file(len: usize) -> *mut u8 {
    with(|state| match zeros(len) {
        Ok(room) => {
            state.file = room;
            state.file.as_mut_ptr()
        }
        Err(_) => ptr::null_mut(),
    })
}

/// Reads the file and plans its chain. 0 if it is no packed file that runs, or one is loaded.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_load() -> u32 {
    with(|state| {
        if state.model.is_some() {
            return done(state, Err("this instance holds a model".to_owned()));
        }
        let file = core::mem::take(&mut state.file);
        let result = Model::new(file).map(|model| state.model = Some(model));
        done(state, result)
    })
}

/// What the last call said, UTF-8.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_text() -> *const u8 {
    with(|state| state.text.as_ptr())
}

/// Its bytes.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_text_len() -> usize {
    with(|state| state.text.len())
}

/// The model's name as the text, empty if it has none; its bytes.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_name() -> usize {
    say(|file| Some(file.about().name.clone().into_owned()))
}

/// The name of an output as the text, empty if it has none; its bytes.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_label(output: usize) -> usize {
    say(|file| Some(file.about().labels.get(output)?.clone().into_owned()))
}

/// The size of an axis of a sample; 0 behind the last.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_shape(axis: usize) -> usize {
    of(0, |model| {
        let shape = &model.input.shape;
        shape.get(axis).copied().unwrap_or(0)
    })
}

/// The raw value that stands for 1.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_divisor() -> f32 {
    of(0.0, |model| model.input.divisor)
}

/// 1 if raw samples hold all channels of a place after the other.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_channels_last() -> u32 {
    of(0, |model| {
        u32::from(model.input.order == Order::ChannelsLast)
    })
}

/// Bytes that a run works in.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_bytes() -> usize {
    of(0, |model| model.plan.bytes())
}

/// Where a raw sample goes, a byte a value; null without a model.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_input() -> *mut u8 {
    of(ptr::null_mut(), |model| model.raw.as_mut_ptr())
}

/// Computes the scores of the sample. 0 if no model is loaded.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_run() -> u32 {
    with(|state| {
        let result = match &mut state.model {
            Some(model) => model.run(),
            None => Err("no model is loaded".to_owned()),
        };
        done(state, result)
    })
}

/// Outputs of the model.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_outputs() -> usize {
    of(0, |model| model.scores.len())
}

/// Their scores; null without a model.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_scores() -> *const f32 {
    of(ptr::null(), |model| model.scores.as_ptr())
}

/// The size of an axis of the first convolution's weight, `[out, in, kh, kw]`; 0 behind the last, or
/// without a convolution.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_kernel_shape(axis: usize) -> usize {
    of(0, |model| {
        let kernels = model.kernels.as_ref();
        let size = kernels.and_then(|kernels| kernels.weight.shape().get(axis));
        size.copied().unwrap_or(0)
    })
}

/// The sign of a weight of the first convolution on a basis, by its place in row-major order; 0 where
/// its group has fewer.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_kernel_sign(place: usize, basis: usize) -> i32 {
    of(0, |model| {
        let kernels = model.kernels.as_ref();
        let row = kernels.and_then(|kernels| Some((kernels, kernels.row(place, basis)?)));
        row.map_or(0, |(kernels, (row, place))| {
            1 - 2 * kernels.weight.bit(row, place) as i32
        })
    })
}

/// The coordinate of that basis; 0 where there is none.
#[unsafe(no_mangle)]
pub extern "C" fn multibit_kernel_coordinate(place: usize, basis: usize) -> f32 {
    of(0.0, |model| {
        let kernels = model.kernels.as_ref();
        let row = kernels.and_then(|kernels| Some((kernels, kernels.row(place, basis)?)));
        row.map_or(0.0, |(kernels, (row, _))| kernels.weight.coordinate(row))
    })
}
