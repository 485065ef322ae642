// Package arch holds the rules of the repository's structure as tests: who may import whom, that every package says what it is
// for, that links in the documents lead somewhere. It has no code of its own.
package arch
