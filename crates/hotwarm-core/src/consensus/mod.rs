//! One member of one replicated log, without I/O: proposals, messages and ticks go in; messages, records to persist, committed
//! entries and read indexes come out.
