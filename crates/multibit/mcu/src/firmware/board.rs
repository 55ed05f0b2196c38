//! What only the board knows: its memory and its timer.

use core::ptr::{addr_of, read_volatile, write_volatile};

// Symbols of the linker's scripts: places, not values.
unsafe extern "C" {
    static _model: u32;
    static __sdata: u32;
    static __edata: u32;
    static __sidata: u32;
    static __ebss: u32;
    static _stack_start: u32;
    static _stack_end: u32;
}

/// Interrupts of the board, none of which is ever enabled: their places in the table of vectors.
// SAFETY: the section and the name are those that cortex-m-rt's script looks for, and nothing else has them.
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(no_mangle)]
static __INTERRUPTS: [usize; 32] = [0; 32];

/// What cortex-m-rt paints the stack with.
const PAINT: u32 = cortex_m_rt::STACK_PAINT_VALUE;

/// From the model's length to its file.
const BEFORE_FILE: usize = 64;

/// Bytes of flash that a model may take.
const MOST: usize = 1 << 20;

/// The packed file in flash.
pub fn model() -> &'static [u8] {
    let start = addr_of!(_model);
    // SAFETY: flash from `_model` on is readable, never written, and belongs to nothing else; 1 MiB
    // behind it is flash too.
    unsafe {
        let length = read_volatile(start) as usize;
        core::slice::from_raw_parts(start.cast::<u8>().add(BEFORE_FILE), length.min(MOST))
    }
}

/// Bytes of the program in flash: vectors, code, constants, and what data begins as.
pub fn flash() -> usize {
    addr_of!(__sidata) as usize + addr_of!(__edata) as usize - addr_of!(__sdata) as usize
}

/// Bytes of statics.
pub fn data() -> usize {
    addr_of!(__ebss) as usize - addr_of!(__sdata) as usize
}

/// Bytes of the stack that have been used.
pub fn deepest_stack() -> usize {
    let end = addr_of!(_stack_start);
    let mut place = addr_of!(_stack_end);
    // SAFETY: between the two symbols is the stack's RAM, which is painted before the program begins.
    while place < end && unsafe { read_volatile(place) } == PAINT {
        place = place.wrapping_add(1);
    }
    end as usize - place as usize
}

/// SysTick, 24 bits at the processor's clock, counting down.
pub struct Timer;

const CONTROL: *mut u32 = 0xE000_E010 as *mut u32;
const RELOAD: *mut u32 = 0xE000_E014 as *mut u32;
const CURRENT: *mut u32 = 0xE000_E018 as *mut u32;
const MOST_TICKS: u32 = (1 << 24) - 1;

/// The board's clock has 25 MHz, and under `-icount shift=0` an instruction takes a nanosecond.
const INSTRUCTIONS_A_TICK: u32 = 40;

impl Timer {
    pub fn start() -> Self {
        // SAFETY: these are SysTick's registers on every Cortex-M; nothing else uses it.
        unsafe {
            write_volatile(RELOAD, MOST_TICKS);
            write_volatile(CURRENT, 0);
            write_volatile(CONTROL, 0b101);
        }
        Self
    }

    /// Instructions since then, to a tick; up to 671 million.
    pub fn instructions(self) -> u32 {
        // SAFETY: as in `start`.
        let left = unsafe { read_volatile(CURRENT) };
        (MOST_TICKS - left) * INSTRUCTIONS_A_TICK
    }
}
