// Package term is how all commands of the program read their command line and what they
// print has in common: flags in any order (args.go), help (help.go), errors and the exit
// statuses they end in (errors.go), tables, lists, colours and questions (output.go), numbers
// and the line that says how far work is (progress.go), and what was built (version.go).
//
// It knows no broker and none of the commands. One that lists or describes has OutputFlags
// and ends in PrintList, PrintObject or PrintTable; one that cannot be undone has
// DestructiveFlags and asks by Confirm; one that cannot go on returns an error of Fail, or of
// Usage if the command line itself is wrong: what, where, what to do, in one line.
//
// [Run] runs a command line of a tree of commands that [Prepare] has gone over, and
// [Report] says how it ended.
package term
