// Package upgrade tests live upgrades with the real weft-proxy as processes on loopback: continuous load goes through while one
// process after the other takes over, and nothing may fail.
package upgrade
