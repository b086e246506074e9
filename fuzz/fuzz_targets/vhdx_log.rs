#![no_main]
diskdelta_fuzz::fuzz!(vhdx_log);
