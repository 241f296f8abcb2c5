//go:build !race

package linear

const withRace = false
