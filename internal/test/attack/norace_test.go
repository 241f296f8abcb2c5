//go:build !race

package attack

const withRace = false
