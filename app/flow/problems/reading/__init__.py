"""From a file to problem drafts: unpacking -> lines, arrays, tables -> readers -> fields, shapes -> drafts."""
