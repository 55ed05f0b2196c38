//! Lines of text for the debugger.

use semihosting::io::{self, Write};

fn write(bytes: &[u8]) {
    // A debugger without a console reads the exit code.
    let _ = io::stdout().and_then(|mut out| out.write_all(bytes));
}

/// A name and a number, without the machinery of `core::fmt`.
pub fn say(name: &str, mut number: usize) {
    let mut digits = [b' '; 12];
    digits[11] = b'\n';
    for digit in digits[1..11].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    write(name.as_bytes());
    write(&digits);
}

/// An error in its own words.
#[cfg(feature = "messages")]
pub fn explain(error: &dyn core::fmt::Display) {
    struct Console;
    impl core::fmt::Write for Console {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            write(text.as_bytes());
            Ok(())
        }
    }
    let _ = core::fmt::write(&mut Console, format_args!("error: {error}\n"));
}
