//go:build unix && !linux

package durable

// RenameNew gives a file another name that nothing has: fs.ErrExist where something does.
func RenameNew(from, to string) error { return linkNew(from, to) }
