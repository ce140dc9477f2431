# What region-config must not say. Each fixture is the sound one with one mistake.
run "the_shipped_configuration_holds" {
  command = plan
  variables {
    directory = "../../../../region-config"
  }
  assert {
    condition     = alltrue([for name in keys(output.facts.config.regions) : can(output.facts.zone_of[name])])
    error_message = "a region has no zone"
  }
}

run "the_sound_fixture_holds" {
  command = plan
  variables {
    directory = "./tests/sound"
  }
  assert {
    condition     = output.facts.source_of == { us_west = "us_east" }
    error_message = "the only master of a zone is whose database its replicas copy"
  }
}

run "networks_that_overlap_are_refused" {
  command = plan
  variables {
    directory = "./tests/overlap"
  }
  expect_failures = [output.facts]
}

run "a_replica_of_another_zones_database_is_refused" {
  command = plan
  variables {
    directory = "./tests/replica_across"
  }
  expect_failures = [output.facts]
}

run "a_region_where_its_zones_data_may_not_be_is_refused" {
  command = plan
  variables {
    directory = "./tests/outside"
  }
  expect_failures = [output.facts]
}

run "a_zone_under_the_gdpr_outside_of_the_economic_area_is_refused" {
  command = plan
  variables {
    directory = "./tests/london"
  }
  expect_failures = [output.facts]
}

run "a_region_without_a_place_is_refused" {
  command = plan
  variables {
    directory = "./tests/placeless"
  }
  expect_failures = [output.facts]
}

run "a_name_too_long_for_target_groups_is_refused" {
  command = plan
  variables {
    directory = "./tests/long_name"
  }
  expect_failures = [output.facts]
}

run "a_zone_under_the_gdpr_in_zurich_is_refused" {
  command = plan
  variables {
    directory = "./tests/zurich"
  }
  expect_failures = [output.facts]
}

run "a_zone_under_the_gdpr_that_does_not_say_where_its_data_may_be_is_refused" {
  command = plan
  variables {
    directory = "./tests/no_aws_regions"
  }
  expect_failures = [output.facts]
}

run "a_replica_of_a_replica_is_refused" {
  command = plan
  variables {
    directory = "./tests/replica_of_a_replica"
  }
  expect_failures = [output.facts]
}

run "a_region_that_is_called_as_a_zone_is_refused" {
  command = plan
  variables {
    directory = "./tests/called_as_a_zone"
  }
  expect_failures = [output.facts]
}

run "a_name_that_no_database_can_have_is_refused" {
  command = plan
  variables {
    directory = "./tests/misshapen"
  }
  expect_failures = [output.facts]
}
