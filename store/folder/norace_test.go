//go:build !race

package folder

const withRace = false
