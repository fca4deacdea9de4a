# `terraform test` here: what is refused, and what must hold. No AWS is asked.

mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name = "distill-test"
  cidr = "10.20.0.0/16"
}

run "refuses_a_long_name" {
  command = plan

  variables {
    name = "a-name-that-no-bucket-could-carry"
  }

  expect_failures = [var.name]
}

run "refuses_public_addresses" {
  command = plan

  variables {
    cidr = "8.8.0.0/16"
  }

  expect_failures = [var.cidr]
}

run "refuses_a_small_vpc" {
  command = plan

  variables {
    cidr = "10.20.0.0/24"
  }

  expect_failures = [var.cidr]
}

run "refuses_one_zone" {
  command = plan

  variables {
    num_zones = 1
  }

  expect_failures = [var.num_zones]
}

run "refuses_an_unknown_nat" {
  command = plan

  variables {
    nat = "some"
  }

  expect_failures = [var.nat]
}

run "refuses_an_odd_retention" {
  command = plan

  variables {
    log_retention_days = 31
  }

  expect_failures = [var.log_retention_days]
}

run "refuses_to_cut_nodes_off" {
  command = plan

  variables {
    nat = "none"
  }

  expect_failures = [var.interface_endpoints]
}

run "subnets_do_not_overlap" {
  command = plan

  assert {
    condition     = toset(values(local.private_cidrs)) == toset(["10.20.0.0/20", "10.20.16.0/20", "10.20.32.0/20"])
    error_message = "private subnets are /20 each, one per zone"
  }

  assert {
    condition     = toset(values(local.public_cidrs)) == toset(["10.20.240.0/24", "10.20.241.0/24", "10.20.242.0/24"])
    error_message = "public subnets are /24 each, at the end"
  }
}

run "single_nat_serves_all_zones" {
  command = plan

  variables {
    nat = "single"
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_route.private) == 3
    error_message = "every private subnet has a way out through the one gateway"
  }
}
