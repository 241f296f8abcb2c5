// Package system is the clock of the machine and its source of randomness. All other packages take
// both from their caller, so that a test can give them others. A constructor that is given none
// takes them from here. Only constructors and package main name this package.
package system

import (
	"crypto/rand"
	"io"
	"time"
)

// Clock is the wall clock. Its times have a monotonic part, so differences are right even if the
// clock is set meanwhile.
type Clock struct{}

// Now returns the time.
func (Clock) Now() time.Time { return time.Now() }

// Random returns bytes that nobody can guess. It never fails.
type Random struct{}

// Read implements io.Reader.
func (Random) Read(p []byte) (int, error) { return rand.Read(p) }

// Text draws a name that is unique and can't be guessed: 26 of the characters A to Z and 2 to 7,
// with 130 random bits. Its errors are those of random.
func Text(random io.Reader) (string, error) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	var b [26]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", err
	}
	for i := range b {
		b[i] = alphabet[b[i]%32]
	}
	return string(b[:]), nil
}
