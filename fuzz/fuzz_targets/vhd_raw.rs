#![no_main]
diskdelta_fuzz::fuzz!(vhd_raw);
