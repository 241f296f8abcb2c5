//go:build unix && !linux

package durable

// RenameNew gives a file a new name that is not taken; fs.ErrExist if it is.
func RenameNew(from, to string) error { return linkNew(from, to) }
