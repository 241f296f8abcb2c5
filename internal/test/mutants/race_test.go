//go:build race

package main

// withRace: the loops are too slow under the race detector, and they look for no races.
const withRace = true
