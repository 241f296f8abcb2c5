//go:build race

package folder

// withRace: the loops are too slow under the race detector, and they look for no races.
const withRace = true
