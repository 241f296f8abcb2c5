// Package panics makes errors of panics, for work that no request waits for: one bad row or file
// fails its own step, and does not end the process.
//
// It owns no cleanup after a failed step: code that holds a lock or the like releases it by defer.
package panics

import (
	"fmt"
	"runtime/debug"
)

// Error is a panic. Its text has the value and the stack.
type Error struct {
	Value any
	Stack []byte
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack) }

// Try calls do, and returns its error, or an *Error if it panics.
func Try(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &Error{p, debug.Stack()}
		}
	}()
	return do()
}
